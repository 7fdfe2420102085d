/* Memory: what is allocated on which device, what is page-locked, and limits on both. */
#include "simulated.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static Range *ranges; /* sorted by address */
static int range_count, range_room;
static const size_t PAGE = 4096, DEVICE_PAGE = 2 << 20, CONTEXT = (size_t)420 << 20;

int contents_matter(void) {
    static int matter = -1;
    if (matter < 0) matter = !setting("SIM_NO_COPY", 0, 0);
    return matter;
}
static double total_bytes(int device) { return (double)((size_t)setting("SIM_TOTAL_MIB", physical_device(device), 24217) << 20); }

/* ---- ranges ---- */
static int first_beyond(uintptr_t address) {
    int low = 0, high = range_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (ranges[middle].start <= address) low = middle + 1; else high = middle;
    }
    return low;
}
const Range *range_of_locked(const void *pointer) {
    int at = first_beyond((uintptr_t)pointer);
    return at && (uintptr_t)pointer < ranges[at - 1].start + ranges[at - 1].bytes ? &ranges[at - 1] : NULL;
}
static void add(const void *start, size_t bytes, MemoryKind kind) {
    if (range_count == range_room) {
        range_room = range_room * 2 + 256;
        ranges = realloc(ranges, sizeof(Range) * range_room);
    }
    int at = first_beyond((uintptr_t)start);
    memmove(ranges + at + 1, ranges + at, sizeof(Range) * (range_count - at));
    ranges[at] = (Range){(uintptr_t)start, bytes, kind, current_device};
    range_count++;
    Counters *of = &counters[current_device];
    double *now = kind == ON_DEVICE ? &of->used_bytes : &of->pinned_bytes;
    double *peak = kind == ON_DEVICE ? &of->used_peak_bytes : &of->pinned_peak_bytes;
    *now += bytes;
    if (*now > *peak) *peak = *now;
}
/* Takes away the range that starts there; returns its bytes, 0 if there is none of that kind. */
static size_t dropped(const void *start, MemoryKind kind) {
    const Range *found = range_of_locked(start);
    if (!found || found->start != (uintptr_t)start || found->kind != kind) return 0;
    Range range = *found;
    int at = (int)(found - ranges);
    memmove(ranges + at, ranges + at + 1, sizeof(Range) * (range_count - at - 1));
    range_count--;
    Counters *of = &counters[range.device];
    *(kind == ON_DEVICE ? &of->used_bytes : &of->pinned_bytes) -= range.bytes;
    return range.bytes;
}
static int overlaps(const void *start, size_t bytes) {
    int at = first_beyond((uintptr_t)start + bytes - 1);
    return at && ranges[at - 1].start + ranges[at - 1].bytes > (uintptr_t)start;
}

/* Host memory of any size in 64 MiB of RAM: the same pages over and over, for programs that never look at it. */
void *sim_alias(size_t bytes) {
    enum { SHARED = 64 << 20 };
    static int file = -1;
    if (file < 0) {
        file = memfd_create("simulated", 0);
        if (ftruncate(file, SHARED)) return NULL;
    }
    char *start = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return NULL;
    for (size_t at = 0; at < bytes; at += SHARED)
        mmap(start + at, bytes - at < SHARED ? bytes - at : SHARED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
    return start;
}
static void *mapped(size_t bytes) {
    void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

/* ---- the device's memory ---- */
double sim_free_bytes(int device) { return total_bytes(device) - counters[device].used_bytes - (counters[device].contexts ? CONTEXT : 0); }
E cudaMemGetInfo(size_t *free_now, size_t *total) {
    LOCK;
    use_context_locked(current_device);
    counters[current_device].memory_infos++;
    host_now_s += costs.info_host;
    *total = total_bytes(current_device);
    *free_now = sim_free_bytes(current_device);
    int device = current_device;
    UNLOCK;
    told("cudaMemGetInfo", device, 0);
    return 0;
}
E cudaMalloc(void **pointer, size_t bytes) {
    int code = refused("cudaMalloc");
    LOCK;
    use_context_locked(current_device);
    counters[current_device].mallocs++;
    host_now_s += costs.malloc_host;
    char *start = code || bytes > sim_free_bytes(current_device) ? NULL : mapped(bytes + DEVICE_PAGE);
    if (start) {
        *pointer = (void *)(((uintptr_t)start + DEVICE_PAGE - 1) & ~(uintptr_t)(DEVICE_PAGE - 1));
        add(*pointer, bytes, ON_DEVICE);
    }
    int device = current_device;
    UNLOCK;
    told("cudaMalloc", device, bytes);
    return start ? 0 : fail(code ? code : OUT_OF_MEMORY);
}
/* Waits until the device is idle, as CUDA's does. */
E cudaFree(void *pointer) {
    LOCK;
    use_context_locked(current_device);
    size_t bytes = 0;
    const Range *range = pointer ? range_of_locked(pointer) : NULL;
    int device = range ? range->device : current_device;
    if (pointer) {
        counters[device].frees++;
        host_until_locked(all_done_locked(device), device);
        host_knows_device_locked(device);
        host_now_s += costs.free_host;
        bytes = dropped(pointer, ON_DEVICE);
        forget_accesses_locked(pointer, bytes);
        if (bytes) munmap(pointer, bytes);
    }
    UNLOCK;
    if (pointer) told("cudaFree", device, bytes);
    return !pointer || bytes ? 0 : fail(INVALID_VALUE);
}

/* ---- page-locked host memory ---- */
static int too_much_pinned(size_t bytes) {
    double pinned = bytes;
    for (int device = 0; device < DEVICES; device++) pinned += counters[device].pinned_bytes;
    return pinned > (double)((size_t)setting("SIM_PIN_MIB", 0, 1 << 30) << 20);
}
E cudaHostAlloc(void **pointer, size_t bytes, unsigned flags) {
    int code = refused("cudaHostAlloc");
    LOCK;
    use_context_locked(current_device);
    size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
    counters[current_device].host_mallocs++;
    host_now_s += costs.malloc_host + bytes / costs.register_rate;
    if (!code && too_much_pinned(whole)) code = OUT_OF_MEMORY;
    if (!code) {
        *pointer = contents_matter() ? mapped(whole) : sim_alias(whole);
        add(*pointer, whole, HOST_ALLOCATED);
    }
    int device = current_device;
    UNLOCK;
    told("cudaHostAlloc", device, bytes);
    return code ? fail(code) : 0;
}
E cudaFreeHost(void *pointer) {
    LOCK;
    counters[current_device].host_frees++;
    host_until_locked(all_done_locked(-1), current_device);
    host_knows_device_locked(-1);
    host_now_s += costs.free_host;
    size_t bytes = dropped(pointer, HOST_ALLOCATED);
    forget_accesses_locked(pointer, bytes);
    if (bytes) munmap(pointer, bytes);
    UNLOCK;
    return bytes ? 0 : fail(INVALID_VALUE);
}
E cudaHostRegister(void *pointer, size_t bytes, unsigned flags) {
    int code = refused("cudaHostRegister");
    LOCK;
    use_context_locked(current_device);
    counters[current_device].registrations++;
    host_now_s += costs.malloc_host + bytes / costs.register_rate;
    if (!code && !bytes) code = INVALID_VALUE;
    if (!code && overlaps(pointer, bytes)) {
        code = ALREADY_REGISTERED;
        violation_locked("cudaHostRegister of %zu bytes at %p: part of them is registered already", bytes, pointer);
    }
    if (!code && too_much_pinned(bytes)) code = OUT_OF_MEMORY;
    if (!code) add(pointer, bytes, REGISTERED);
    int device = current_device;
    UNLOCK;
    told("cudaHostRegister", device, bytes);
    return code ? fail(code) : 0;
}
/* The memory may become anything from here on, so a copy that the host has not waited for is a fault. */
E cudaHostUnregister(void *pointer) {
    LOCK;
    use_context_locked(current_device);
    counters[current_device].unregistrations++;
    host_now_s += costs.free_host;
    size_t bytes = dropped(pointer, REGISTERED);
    if (!bytes) violation_locked("cudaHostUnregister of %p, where nothing was registered", pointer);
    else if (still_read_locked(pointer, bytes)) violation_locked("cudaHostUnregister of %zu bytes at %p that a copy may still read", bytes, pointer);
    forget_copies_locked(pointer, bytes);
    forget_accesses_locked(pointer, bytes);
    int device = current_device;
    UNLOCK;
    told("cudaHostUnregister", device, bytes);
    return bytes ? 0 : fail(NOT_REGISTERED);
}
long sim_registered(void) { /* ranges that are registered now */
    long found = 0;
    LOCK;
    for (int i = 0; i < range_count; i++) found += ranges[i].kind == REGISTERED;
    UNLOCK;
    return found;
}
E cudaPointerGetAttributes(struct cudaPointerAttributes *of, const void *pointer) {
    LOCK;
    const Range *range = range_of_locked(pointer);
    memset(of, 0, sizeof *of);
    of->type = !range ? 0 : range->kind == ON_DEVICE ? 2 : 1;
    of->device = range ? range->device : current_device;
    of->devicePointer = of->hostPointer = range ? (void *)pointer : NULL;
    UNLOCK;
    return 0;
}
