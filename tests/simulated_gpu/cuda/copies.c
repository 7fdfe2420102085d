/* Copies: which engine and who waits; contents move late, at the last moment that CUDA allows.
 *
 * Bytes between host and device move only when the host has waited for the copy (or for what is ordered behind it). Until
 * then the target has its old contents, and the source must stay as it is: what changed in between is a fault. What stays
 * on the device moves at once, after what is ordered before it.
 */
#include "simulated.h"
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- contents that are still to move, in the order in which they were enqueued ---- */
typedef struct { char *target; const char *source; size_t bytes; int lane; uint64_t piece, digest; int from_host; } Due;
static Due *due;
static int due_count, due_room;
enum { MOST_DUE = 1 << 15 };

/* Reads or writes memory that may be gone; 0 if it is. */
static int moved(void *target, const void *source, size_t bytes) {
    struct iovec to = {target, bytes}, from = {(void *)source, bytes};
    return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)bytes;
}
static uint64_t digest_of(const char *source, size_t bytes) {
    uint64_t digest = 14695981039346656037u, word;
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        memcpy(&word, source + at, 8);
        digest = (digest ^ word) * 1099511628211u;
    }
    for (size_t at = bytes / 8 * 8; at < bytes; at++) digest = (digest ^ (unsigned char)source[at]) * 1099511628211u;
    return digest;
}
static void run(const Due *copy) {
    if (!moved(copy->target, copy->source, copy->bytes)) {
        violation_locked("a copy of %zu bytes from %p to %p ran after its memory was gone", copy->bytes, copy->source, copy->target);
        return;
    }
    if (copy->from_host && digest_of(copy->target, copy->bytes) != copy->digest)
        violation_locked("the source of a copy of %zu bytes at %p changed before the copy was waited for", copy->bytes, copy->source);
}
void run_due_copies_locked(void) {
    int kept = 0;
    for (int i = 0; i < due_count; i++) {
        if (host_clock.at[due[i].lane] >= due[i].piece) run(&due[i]);
        else due[kept++] = due[i];
    }
    due_count = kept;
}
/* Copies that read memory which is no longer page-locked: how they end is nobody's promise, so they don't run. */
void forget_copies_locked(const void *start, size_t bytes) {
    int kept = 0;
    for (int i = 0; i < due_count; i++)
        if (due[i].source + due[i].bytes <= (const char *)start || due[i].source >= (const char *)start + bytes)
            due[kept++] = due[i];
    due_count = kept;
}
/* Moves what is due from or to this memory and ordered before the lane's next work. What the lane did not wait for stays
 * away, as it might on a GPU. */
static void settle_locked(const char *start, size_t bytes, int lane) {
    const Clock *clock = &lanes[lane].clock;
    int kept = 0;
    for (int i = 0; i < due_count; i++) {
        const Due *copy = &due[i];
        int to = copy->target < start + bytes && copy->target + copy->bytes > start;
        int from = copy->source < start + bytes && copy->source + copy->bytes > start;
        int ordered = copy->piece <= clock->at[copy->lane] || copy->piece <= host_clock.at[copy->lane];
        if ((to || from) && ordered) run(copy);
        else due[kept++] = *copy;
    }
    due_count = kept;
}
/* For kernels that are computed on the host when they are enqueued: true_values.py. */
void sim_settle(const char *start, size_t bytes, const void *stream) {
    LOCK;
    settle_locked(start, bytes, lane_of(stream));
    UNLOCK;
}
static void later(Due copy) {
    if (due_count == MOST_DUE) { /* nobody waits for so many; the oldest are surely done */
        for (int i = 0; i < MOST_DUE / 2; i++) run(&due[i]);
        memmove(due, due + MOST_DUE / 2, sizeof(Due) * (due_count -= MOST_DUE / 2));
    }
    if (due_count == due_room) due = realloc(due, sizeof(Due) * (due_room = due_room * 2 + 256));
    due[due_count++] = copy;
}

/* ---- where a copy runs ---- */
typedef struct { MemoryKind kind; int device; } Place;
static Place place_of_locked(const void *start, size_t bytes) {
    const Range *range = range_of_locked(start);
    if (!range) return (Place){NOWHERE, current_device};
    if ((uintptr_t)start + bytes > range->start + range->bytes) {
        counters[current_device].straddles++;
        violation_locked("a copy of %zu bytes at %p goes beyond the page-locked range it begins in", bytes, start);
        return (Place){NOWHERE, current_device};
    }
    return (Place){range->kind, range->device};
}

enum { SMALL = 65536 }; /* pageable sources up to here are taken into the driver's own memory at once */
typedef struct { double end_s; int blocks, pageable; } Enqueued;

static Enqueued upload(int lane, size_t bytes, MemoryKind from) {
    Counters *of = &counters[lanes[lane].device];
    of->h2d_copies++;
    of->h2d_bytes += bytes;
    double rate = from || bytes <= SMALL ? costs.pinned_rate : costs.pageable_rate;
    if (!from && bytes <= SMALL) host_now_s += bytes / costs.host_rate;
    double end_s = enqueue_locked(TO_DEVICE, lane, 0, costs.copy_latency + bytes / rate, "h2d", bytes);
    return (Enqueued){end_s, !from && bytes > SMALL, !from};
}
static Enqueued download(int lane, size_t bytes, MemoryKind to) {
    Counters *of = &counters[lanes[lane].device];
    of->d2h_copies++;
    of->d2h_bytes += bytes;
    double seconds = costs.copy_latency + bytes / (to ? costs.pinned_rate : costs.pageable_rate);
    return (Enqueued){enqueue_locked(FROM_DEVICE, lane, 0, seconds, "d2h", bytes), !to, !to};
}
static Enqueued within(int lane, size_t bytes) {
    counters[lanes[lane].device].d2d_copies++;
    counters[lanes[lane].device].d2d_bytes += bytes;
    return (Enqueued){enqueue_locked(COMPUTE, lane, costs.launch_latency, 2 * bytes / costs.device_rate, "d2d", bytes), 0, 0};
}

static void move(char *target, const char *source, size_t bytes, int lane, MemoryKind from, MemoryKind to) {
    int within_device = from == ON_DEVICE && to == ON_DEVICE, taken_at_once = from == NOWHERE && bytes <= SMALL;
    if (within_device || taken_at_once) {
        settle_locked(source, bytes, lane);
        settle_locked(target, bytes, lane);
        memmove(target, source, bytes);
        return;
    }
    Due copy = {target, source, bytes, lane, lanes[lane].clock.at[lane], 0, from != ON_DEVICE};
    if (copy.from_host) copy.digest = digest_of(source, bytes);
    later(copy);
}
static Enqueued copied(char *target, const char *source, size_t bytes, int lane, Place from, Place to) {
    Counters *of = &counters[lanes[lane].device];
    const char *what = from.kind == ON_DEVICE ? to.kind == ON_DEVICE ? "copy within the device" : "copy to the host" : "copy to the device";
    Enqueued done = from.kind != ON_DEVICE ? upload(lane, bytes, from.kind) : to.kind != ON_DEVICE ? download(lane, bytes, to.kind) : within(lane, bytes);
    if (done.pageable) {
        of->pageable_copies++;
        of->pageable_bytes += bytes;
    }
    copy_reads_locked(lane, source, bytes, what);
    writes_locked(lane, target, bytes, what);
    if (contents_matter()) move(target, source, bytes, lane, from.kind, to.kind);
    return done;
}

static E copy(void *target, const void *source, size_t bytes, const void *stream, int waits) {
    int code = refused("cudaMemcpyAsync");
    if (code) return fail(code);
    if (!bytes) return 0;
    LOCK;
    use_context_locked(current_device);
    int lane = lane_of(stream), device = lanes[lane].device, blocked = 0;
    Place from = place_of_locked(source, bytes), to = place_of_locked(target, bytes);
    host_now_s += costs.copy_host;
    if (from.kind != ON_DEVICE && to.kind != ON_DEVICE) {
        host_now_s += bytes / costs.host_rate;
        if (contents_matter()) memcpy(target, source, bytes);
        UNLOCK;
        return 0;
    }
    Enqueued done = copied(target, source, bytes, lane, from, to);
    if (done.blocks || waits) {
        blocked = 1;
        counters[device].blocking_copies++;
        host_until_locked(done.end_s, device);
        host_knows_locked(&lanes[lane].clock);
    }
    UNLOCK;
    if (blocked) told("blocking copy", device, bytes);
    else if (done.pageable) told("pageable copy", device, bytes);
    return 0;
}
E cudaMemcpyAsync(void *target, const void *source, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) { return copy(target, source, bytes, stream, 0); }
E cudaMemcpy(void *target, const void *source, size_t bytes, enum cudaMemcpyKind kind) { return copy(target, source, bytes, NULL, 1); }
E cudaMemcpyPeerAsync(void *target, int to, const void *source, int from, size_t bytes, cudaStream_t stream) { return copy(target, source, bytes, stream, 0); }
E cudaMemcpy2DAsync(void *target, size_t to_pitch, const void *source, size_t from_pitch, size_t width, size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    for (size_t i = 0; i < height; i++) copy((char *)target + i * to_pitch, (const char *)source + i * from_pitch, width, stream, 0);
    return 0;
}
E cudaMemsetAsync(void *target, int value, size_t bytes, cudaStream_t stream) {
    if (!bytes) return 0;
    LOCK;
    use_context_locked(current_device);
    int lane = lane_of(stream);
    counters[lanes[lane].device].memsets++;
    host_now_s += costs.launch_host;
    enqueue_locked(COMPUTE, lane, costs.launch_latency, bytes / costs.device_rate, "memset", bytes);
    writes_locked(lane, target, bytes, "memset");
    if (contents_matter()) {
        settle_locked(target, bytes, lane);
        memset(target, value, bytes);
    }
    UNLOCK;
    return 0;
}
E cudaMemset(void *target, int value, size_t bytes) { return cudaMemsetAsync(target, value, bytes, NULL); }
