/* What the files of the simulated CUDA runtime share: devices, lanes, counters, clocks and what each file promises.
 *
 * Kernels compute nothing. Memory, streams, events, copies and page-locking are modelled; each call is counted, costs
 * virtual seconds (clock.c) and is checked for order (order.c). One mutex guards everything; functions that end in
 * `_locked` want it held.
 */
#ifndef SIMULATED_H
#define SIMULATED_H
#define _GNU_SOURCE
#include <driver_types.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <vector_types.h>
#undef cudaGetDeviceProperties
#undef cudaStreamGetCaptureInfo
#undef cudaGetDriverEntryPointByVersion

typedef cudaError_t E;
enum { DEVICES = 8, LANES = 256, OWN_LANES = DEVICES }; /* a device's default stream is the lane of its number */
enum { OUT_OF_MEMORY = 2, INVALID_VALUE = 1, INVALID_DEVICE = 101, INVALID_HANDLE = 400, NOT_READY = 600, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713 };

/* ---- counters, per device: of calls since `sim_count_anew`, then what is the case now ---- */
#define COUNTERS(X) \
    X(syncs) X(blocking_copies) X(pageable_copies) X(pageable_bytes) X(mallocs) X(frees) X(memory_infos) \
    X(event_creates) X(records) X(waits) X(unrecorded_waits) X(queries) X(launches) X(unseen_kernels) \
    X(h2d_copies) X(h2d_bytes) X(d2h_copies) X(d2h_bytes) X(d2d_copies) X(d2d_bytes) X(memsets) \
    X(registrations) X(unregistrations) X(host_mallocs) X(host_frees) X(straddles) X(refusals) \
    X(blocked_s) X(compute_busy_s) X(h2d_busy_s) X(d2h_busy_s)
#define LEVELS(X) X(used_bytes) X(used_peak_bytes) X(pinned_bytes) X(pinned_peak_bytes) X(contexts)
#define FIELD(name) double name;
typedef struct { COUNTERS(FIELD) LEVELS(FIELD) } Counters;
extern Counters counters[DEVICES];

/* ---- a lane is a stream; a clock says up to which piece of each lane's work something is ordered behind it ---- */
typedef struct { uint64_t at[LANES]; } Clock;
typedef struct { int device, used; double ready_s, *ends_s; long enqueued; Clock clock; } LaneState;
typedef struct { int device, flags, recorded; double at_s; Clock clock; } Event;
extern LaneState lanes[LANES];
extern int lane_count;
extern Clock host_clock;

extern pthread_mutex_t simulated_mutex;
extern __thread int current_device;
#define LOCK pthread_mutex_lock(&simulated_mutex)
#define UNLOCK pthread_mutex_unlock(&simulated_mutex)

/* ---- calls.c: errors, refusals, who watches ---- */
E fail(int code);
int refused(const char *call);                              /* the code with which this call must fail, or 0 */
void told(const char *call, int device, double bytes);      /* tells the watcher, if there is one; without the mutex */
long setting(const char *name, int device, long otherwise); /* an environment variable; with commas, one for each device */

/* ---- device.c ---- */
void use_context_locked(int device);
int physical_device(int visible);

/* ---- clock.c: virtual time ---- */
typedef enum { COMPUTE, TO_DEVICE, FROM_DEVICE, ENGINES } EngineKind;
typedef struct {
    double pinned_rate, pageable_rate, device_rate, host_rate; /* bytes/s: link, driver-staged link, VRAM, host's copies */
    double launch_host, launch_latency, launch_default;        /* host's part, way to the GPU, a kernel nobody priced */
    double event_host, copy_host, copy_latency;                /* record or wait; enqueue a copy; its start on the engine */
    double malloc_host, free_host, register_rate, info_host, sync_host;
    double queue_depth;                                        /* pieces that a lane holds before the host must wait */
} Costs;
extern Costs costs;
extern double host_now_s;
int lane_of(const void *stream);
double enqueue_locked(EngineKind engine, int lane, double latency_s, double seconds, const char *what, double bytes);
double kernel_seconds_locked(void);
void host_until_locked(double moment_s, int device);
double all_done_locked(int device); /* -1: of all devices */

/* ---- order.c: what is ordered before what ---- */
void note_enqueued_locked(int lane);
void note_waited_locked(int lane, const Event *event);
void host_knows_locked(const Clock *clock);
void host_knows_device_locked(int device);
void kernel_uses_locked(int lane, const void *pointer, const char *kernel);
void copy_reads_locked(int lane, const void *start, size_t bytes, const char *what);
void writes_locked(int lane, const void *start, size_t bytes, const char *what);
void forget_accesses_locked(const void *start, size_t bytes);
int still_read_locked(const void *start, size_t bytes);
void violation_locked(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- copies.c: contents ---- */
void run_due_copies_locked(void); /* what the host now knows to be done */
void forget_copies_locked(const void *start, size_t bytes);

/* ---- memory.c ---- */
typedef enum { NOWHERE, REGISTERED, HOST_ALLOCATED, ON_DEVICE } MemoryKind;
typedef struct { uintptr_t start; size_t bytes; MemoryKind kind; int device; } Range;
const Range *range_of_locked(const void *pointer);
int contents_matter(void); /* 0 under SIM_NO_COPY=1: no memory is read or written, so models of any size "run" */

/* ---- parameters.c: where in a kernel's parameters its values lie ---- */
typedef struct { int count, known; unsigned short sizes[64]; } Parameters;
const Parameters *parameters_of(const void *fat_binary, const char *kernel);

#endif
