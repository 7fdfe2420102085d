/* Kernels: what the program registers, and launches, which cost time and use the addresses they are given. */
#include "simulated.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- registration: by the address of the host's function ---- */
typedef struct { const void *function; const char *name; const void *fat_binary; const Parameters *parameters; } Kernel;
static Kernel *kernels; /* a hash table, open */
static size_t kernel_room, kernel_count;

static Kernel *slot_of(Kernel *table, size_t room, const void *function) {
    size_t at = ((uintptr_t)function >> 4) * 11400714819323198485u % room;
    while (table[at].function && table[at].function != function) at = (at + 1) % room;
    return &table[at];
}
static void grow(void) {
    size_t room = kernel_room ? kernel_room * 2 : 1 << 15;
    Kernel *table = calloc(room, sizeof *table);
    for (size_t i = 0; i < kernel_room; i++)
        if (kernels[i].function) *slot_of(table, room, kernels[i].function) = kernels[i];
    free(kernels);
    kernels = table;
    kernel_room = room;
}
void **__cudaRegisterFatBinary(void *fat_binary) {
    void **handle = malloc(sizeof *handle);
    *handle = fat_binary;
    return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) { }
void __cudaUnregisterFatBinary(void **handle) { }
void __cudaRegisterFunction(void **handle, const char *function, char *device_function, const char *name, int limit, void *a, void *b, void *c, void *d, int *warp) {
    LOCK;
    if (2 * kernel_count >= kernel_room) grow();
    Kernel *kernel = slot_of(kernels, kernel_room, function);
    kernel_count += !kernel->function;
    *kernel = (Kernel){function, name, *handle, NULL};
    UNLOCK;
}
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int external, size_t bytes, int constant, int global) { }
char __cudaInitModule(void **handle) { return 1; }
E __cudaGetKernel(cudaKernel_t *kernel, const void *function) { *kernel = (cudaKernel_t)function; return 0; }

/* ---- launches ---- */
static int address_count; /* of addresses that the last launch was given */
static int launched_locked(int lane) {
    address_count = 0;
    counters[lanes[lane].device].launches++;
    host_now_s += costs.launch_host;
    enqueue_locked(COMPUTE, lane, costs.launch_latency, kernel_seconds_locked(), "kernel", 0);
    return lane;
}
enum { MOST_ADDRESSES = 64 };
static const void *addresses[MOST_ADDRESSES];
static void use_locked(int lane, const void *pointer, const char *kernel) {
    if (!range_of_locked(pointer)) return;
    if (address_count < MOST_ADDRESSES) addresses[address_count++] = pointer;
    kernel_uses_locked(lane, pointer, kernel);
}
static void uses_locked(int lane, const char *values, size_t bytes, const char *kernel) {
    void *pointer;
    for (size_t at = 0; at + sizeof pointer <= bytes; at += sizeof pointer) {
        memcpy(&pointer, values + at, sizeof pointer);
        use_locked(lane, pointer, kernel);
    }
}
/* PyTorch's `cat` hands over a table of 64 or 128 inputs, of which it fills as many as the grid has rows. */
static size_t filled(const char *kernel, int parameter, size_t bytes, dim3 grid) {
    int is_table = parameter == 1 && strstr(kernel, "CatArrayBatchedCopy");
    return is_table && grid.y * sizeof(void *) < bytes ? grid.y * sizeof(void *) : bytes;
}
static void kernel_uses(const Kernel *kernel, int lane, void **arguments, dim3 grid) {
    for (int i = 0; i < kernel->parameters->count; i++)
        uses_locked(lane, arguments[i], filled(kernel->name, i, kernel->parameters->sizes[i], grid), kernel->name);
}
static E launch(const void *function, void **arguments, dim3 grid, const void *stream) {
    int code = refused("cudaLaunchKernel");
    if (code) return fail(code);
    LOCK;
    use_context_locked(current_device);
    int lane = lane_of(stream), foreign = lanes[lane].device != current_device;
    launched_locked(lane);
    Kernel *kernel = kernel_room ? slot_of(kernels, kernel_room, function) : NULL;
    if (kernel && kernel->function && !kernel->parameters) kernel->parameters = parameters_of(kernel->fat_binary, kernel->name);
    if (!kernel || !kernel->function || !kernel->parameters->known) counters[lanes[lane].device].unseen_kernels++;
    else kernel_uses(kernel, lane, arguments, grid);
    UNLOCK;
    return foreign ? fail(INVALID_HANDLE) : 0;
}
E __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) { return launch(kernel, arguments, grid, stream); }
E cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) { return launch(function, arguments, grid, stream); }
E cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t stream) { return launch(function, arguments, grid, stream); }
E cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **arguments) { return launch(function, arguments, config->gridDim, config->stream); }

static __thread struct { dim3 grid, block; size_t shared; void *stream; } pending;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream) {
    pending.grid = grid;
    pending.block = block;
    pending.shared = shared;
    pending.stream = stream;
    return 0;
}
E __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = pending.grid;
    *block = pending.block;
    *shared = pending.shared;
    *(void **)stream = pending.stream;
    return 0;
}

/* From the libraries that `libraries.py` makes: a matrix product, with all its arguments, of which some are addresses. */
int sim_library_call(const char *name, void *stream, const void **arguments, int count) {
    int code = refused(name);
    if (code) return code;
    LOCK;
    use_context_locked(current_device);
    int lane = launched_locked(lane_of(stream));
    for (int i = 0; i < count; i++) use_locked(lane, arguments[i], name);
    UNLOCK;
    return 0;
}

int sim_last_addresses(const void **into, int room) {
    LOCK;
    int count = address_count < room ? address_count : room;
    memcpy(into, addresses, sizeof *into * count);
    UNLOCK;
    return count;
}

/* What a kernel that is written in Python would use, for tests of the checks. */
void sim_kernel(void *stream, const void *pointer) {
    LOCK;
    kernel_uses_locked(launched_locked(lane_of(stream)), pointer, "test kernel");
    UNLOCK;
}

/* ---- what PyTorch asks about kernels ---- */
E cudaFuncGetAttributes(struct cudaFuncAttributes *of, const void *function) {
    memset(of, 0, sizeof *of);
    of->maxThreadsPerBlock = 1024;
    of->binaryVersion = of->ptxVersion = (int)setting("SIM_CC", physical_device(current_device), 89);
    of->numRegs = 32;
    of->maxDynamicSharedSizeBytes = 101376;
    return 0;
}
E cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) { return 0; }
E cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function, int threads, size_t shared) { *blocks = 2; return 0; }
E cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, const void *function, int threads, size_t shared, unsigned flags) { *blocks = 2; return 0; }
E cudaGetSymbolAddress(void **pointer, const void *symbol) {
    static char *memory;
    if (!memory) memory = calloc(1, 1 << 20);
    *pointer = memory;
    return 0;
}
E cudaMemcpyToSymbol(const void *symbol, const void *source, size_t bytes, size_t offset, enum cudaMemcpyKind kind) { return 0; }
