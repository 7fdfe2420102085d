/* Devices: how many, which of them a thread uses, what they say of themselves; contexts. */
#include "simulated.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `1`, or `GPU-01020304-0506-0708-090a-0b0c0d0e0f01` as NVML names it; -1 for what is neither. */
static long named_device(const char *text, char **end) {
    static const char prefix[] = "GPU-01020304-0506-0708-090a-0b0c0d0e0f";
    int by_uuid = !strncmp(text, prefix, sizeof prefix - 1);
    if (by_uuid) text += sizeof prefix - 1;
    long number = strtol(text, end, by_uuid ? 16 : 10);
    return *end == text ? -1 : number;
}
/* CUDA_VISIBLE_DEVICES; how many devices a process sees, and which one of the machine each of them is. */
static int visible_devices(int *physical) {
    int all = (int)setting("SIM_DEVICES", 0, 1), count = 0;
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    if (!text) {
        for (; count < all && count < DEVICES; count++) physical[count] = count;
        return count;
    }
    for (char *end; *text && count < DEVICES; text = *end ? end + 1 : end) {
        long number = named_device(text, &end);
        if (number < 0 || number >= all) break;
        physical[count++] = (int)number;
    }
    return count;
}
static int device_count(void) {
    static int count = -1, physical[DEVICES];
    if (count < 0) count = visible_devices(physical);
    return count;
}
int physical_device(int visible) {
    int physical[DEVICES], count = visible_devices(physical);
    return visible < count ? physical[visible] : 0;
}
static int capability(int device) { return (int)setting("SIM_CC", physical_device(device), 89); }

/* A process's first call on a device makes a context there, which takes memory and shows it to others. */
void use_context_locked(int device) { counters[device].contexts = 1; }
E cudaGetDeviceCount(int *count) {
    *count = device_count();
    return *count ? 0 : fail(100);
}
/* PyTorch's kernels take structs that are filled in part; what lay on the stack before shows through as addresses of
 * tensors that another op used. Each op asks for the device at its start, and what is below that frame is nobody's. */
__attribute__((noinline)) static void clear_stack(void) {
    char below[48 << 10];
    memset(below, 0, sizeof below);
    __asm__ volatile("" : : "r"(below) : "memory");
}
E cudaGetDevice(int *device) {
    clear_stack();
    *device = current_device;
    return 0;
}
E cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return fail(INVALID_DEVICE);
    LOCK;
    current_device = device;
    use_context_locked(device);
    UNLOCK;
    return 0;
}
E cudaGetDeviceProperties(struct cudaDeviceProp *of, int device) {
    if (device < 0 || device >= device_count()) return fail(INVALID_DEVICE);
    memset(of, 0, sizeof *of);
    snprintf(of->name, sizeof of->name, "%s", getenv("SIM_NAME") ? getenv("SIM_NAME") : "Simulated GPU");
    memcpy(of->uuid.bytes, "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f", 15);
    of->uuid.bytes[15] = (char)physical_device(device);
    of->totalGlobalMem = (size_t)setting("SIM_TOTAL_MIB", physical_device(device), 24217) << 20;
    of->major = capability(device) / 10;
    of->minor = capability(device) % 10;
    of->sharedMemPerBlock = 49152;
    of->sharedMemPerBlockOptin = 101376;
    of->sharedMemPerMultiprocessor = 102400;
    of->regsPerBlock = of->regsPerMultiprocessor = 65536;
    of->warpSize = 32;
    of->maxThreadsPerBlock = of->maxThreadsDim[0] = of->maxThreadsDim[1] = 1024;
    of->maxThreadsDim[2] = 64;
    of->maxGridSize[0] = 2147483647;
    of->maxGridSize[1] = of->maxGridSize[2] = 65535;
    of->totalConstMem = 65536;
    of->textureAlignment = 512;
    of->multiProcessorCount = 128;
    of->maxThreadsPerMultiProcessor = 1536;
    of->unifiedAddressing = of->concurrentKernels = of->canMapHostMemory = 1;
    of->asyncEngineCount = 2;
    of->l2CacheSize = 72 << 20;
    of->pciBusID = 1 + physical_device(device);
    return 0;
}
E cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    switch ((int)attribute) {
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 49152; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMultiProcessorCount: *value = 128; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 1536; break;
        case cudaDevAttrAsyncEngineCount: *value = 2; break;
        case cudaDevAttrComputeCapabilityMajor: *value = capability(device) / 10; break;
        case cudaDevAttrComputeCapabilityMinor: *value = capability(device) % 10; break;
        case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 102400; break;
        case cudaDevAttrMaxRegistersPerMultiprocessor: *value = 65536; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 101376; break;
        default: *value = 1;
    }
    return 0;
}
E cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
E cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
E cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return 0; }
E cudaDeviceEnablePeerAccess(int peer, unsigned flags) { return 0; }
E cudaDeviceGetPCIBusId(char *text, int room, int device) { snprintf(text, room, "0000:%02x:00.0", 1 + physical_device(device)); return 0; }

/* ---- what PyTorch asks the driver for by name ---- */
static int driver_ok(void *first, ...) { return 0; }
static int driver_unsupported(void *first, ...) { return 801; } /* no virtual memory, so no expandable segments */
static int driver_context(void **context) { *context = (void *)8; return 0; }
int sim_context_state(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = device >= 0 && device < DEVICES && counters[device].contexts;
    return 0;
}
E cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, enum cudaDriverEntryPointQueryResult *result) {
    *function = !strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)sim_context_state
              : !strcmp(name, "cuCtxGetCurrent") ? (void *)driver_context
              : !strncmp(name, "cuMem", 5) ? (void *)driver_unsupported : (void *)driver_ok;
    if (result) *result = 0;
    return 0;
}
