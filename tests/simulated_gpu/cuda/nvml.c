/* NVIDIA's management library, as far as PyTorch and Roost ask it: the machine's devices, not only those a process sees. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;
enum { NOT_SUPPORTED = 3, NOT_FOUND = 6 };
static const unsigned long long RESERVED = 500ull << 20;

static long setting(const char *name, int device, long otherwise) {
    const char *text = getenv(name);
    for (; text && device > 0 && strchr(text, ','); device--) text = strchr(text, ',') + 1;
    return text && *text ? atol(text) : otherwise;
}
static int number_of(void *device) { return (int)(long)device - 0x10; }
static unsigned long long total_of(void *device) { return (unsigned long long)setting("SIM_TOTAL_MIB", number_of(device), 24217) << 20; }
/* What this process holds, where it uses the simulated runtime; other processes hold nothing. */
static unsigned long long used_of(void *device) {
    double (*free_bytes)(int) = (double (*)(int))dlsym(RTLD_DEFAULT, "sim_free_bytes");
    return free_bytes ? total_of(device) - (unsigned long long)free_bytes(number_of(device)) : 0;
}

Result nvmlInit_v2(void) { return 0; }
Result nvmlInitWithFlags(unsigned flags) { return 0; }
Result nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(Result result) { return result == NOT_FOUND ? "Not Found" : result == NOT_SUPPORTED ? "Not Supported" : "simulated"; }
Result nvmlSystemGetDriverVersion(char *text, unsigned room) { snprintf(text, room, "580.95.05"); return 0; }
Result nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
Result nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)setting("SIM_DEVICES", 0, 1); return 0; }
Result nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index >= (unsigned)setting("SIM_DEVICES", 0, 1)) return NOT_FOUND;
    *device = (void *)(long)(0x10 + index);
    return 0;
}
Result nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) { /* domain:bus:device.0 */
    return nvmlDeviceGetHandleByIndex_v2((unsigned)strtol(strchr(bus, ':') + 1, NULL, 16) - 1, device);
}
Result nvmlDeviceGetUUID(void *device, char *text, unsigned room) { snprintf(text, room, "GPU-01020304-0506-0708-090a-0b0c0d0e0f%02x", number_of(device)); return 0; }
Result nvmlDeviceGetName(void *device, char *text, unsigned room) { snprintf(text, room, "%s", getenv("SIM_NAME") ? getenv("SIM_NAME") : "Simulated GPU"); return 0; }
Result nvmlDeviceGetMemoryInfo(void *device, Memory *of) {
    of->total = total_of(device);
    of->used = used_of(device) + RESERVED;
    of->free = of->total - of->used;
    return 0;
}
Result nvmlDeviceGetMemoryInfo_v2(void *device, MemoryV2 *of) {
    of->total = total_of(device);
    of->reserved = RESERVED;
    of->used = used_of(device);
    of->free = of->total - of->used - RESERVED;
    return 0;
}
Result nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    long capability = setting("SIM_CC", number_of(device), 89);
    *major = (int)capability / 10;
    *minor = (int)capability % 10;
    return 0;
}
Result nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) { return NOT_SUPPORTED; }
Result nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *value) { *value = 4; return 0; }
Result nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *value) { *value = 4; return 0; }
Result nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *value) { *value = 16; return 0; }
Result nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *value) { *value = 16; return 0; }
Result nvmlDeviceGetComputeRunningProcesses(void *device, unsigned *count, void *of) { *count = 0; return 0; }
Result nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *of) { *count = 0; return 0; }
Result nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, void *of) { *count = 0; return 0; }
Result nvmlDeviceGetClockInfo(void *device, int type, unsigned *value) { *value = 1980; return 0; }
Result nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *value) { *value = 0; return 0; }
Result nvmlDeviceGetNvLinkRemoteDeviceType(void *device, unsigned link, int *type) { return NOT_SUPPORTED; }
Result nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, void *of) { return NOT_SUPPORTED; }
Result nvmlDeviceGetFabricInfoV(void *device, void *of) { return NOT_SUPPORTED; }
