/* Streams and events: handles, waits, what the host learns by waiting. */
#include "simulated.h"
#include <stdlib.h>

/* ---- streams ---- */
E cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    LOCK;
    use_context_locked(current_device);
    int lane = OWN_LANES;
    while (lane < LANES && lanes[lane].used) lane++;
    if (lane < LANES) {
        lanes[lane].used = 1;
        lanes[lane].device = current_device;
        if (lane >= lane_count) lane_count = lane + 1;
        *stream = (cudaStream_t)(uintptr_t)(0x1000 + 16 * lane);
    }
    UNLOCK;
    return lane < LANES ? 0 : fail(OUT_OF_MEMORY);
}
E cudaStreamCreate(cudaStream_t *stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
E cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) { return cudaStreamCreateWithPriority(stream, flags, 0); }
E cudaStreamDestroy(cudaStream_t stream) { /* its lane keeps its history, and stays taken */ return 0; }
static E waited(const char *call, int device, int lane) {
    LOCK;
    use_context_locked(current_device);
    counters[device].syncs++;
    host_now_s += costs.sync_host;
    host_until_locked(lane < 0 ? all_done_locked(device) : lanes[lane].ready_s, device);
    if (lane < 0) host_knows_device_locked(device); else host_knows_locked(&lanes[lane].clock);
    UNLOCK;
    told(call, device, 0);
    return 0;
}
E cudaStreamSynchronize(cudaStream_t stream) { int lane = lane_of(stream); return waited("cudaStreamSynchronize", lanes[lane].device, lane); }
E cudaDeviceSynchronize(void) { return waited("cudaDeviceSynchronize", current_device, -1); }
E cudaStreamQuery(cudaStream_t stream) {
    LOCK;
    LaneState *lane = &lanes[lane_of(stream)];
    int done = lane->ready_s <= host_now_s;
    counters[lane->device].queries++;
    if (done) host_knows_locked(&lane->clock);
    UNLOCK;
    return done ? 0 : NOT_READY;
}
E cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return 0; }
E cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return 0; }
E cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) { *status = 0; return 0; }
E cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
    *status = 0;
    if (count) *count = 0;
    return 0;
}
E cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { return 0; }

/* ---- events ---- */
enum { WITHOUT_TIMING = 2 };
E cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    LOCK;
    use_context_locked(current_device);
    counters[current_device].event_creates++;
    Event *made = calloc(1, sizeof *made);
    made->flags = flags;
    made->device = current_device;
    *event = (cudaEvent_t)made;
    UNLOCK;
    return 0;
}
E cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, 0); }
E cudaEventDestroy(cudaEvent_t event) { free(event); return 0; }
E cudaEventRecord(cudaEvent_t handle, cudaStream_t stream) {
    LOCK;
    Event *event = (Event *)handle;
    int lane = lane_of(stream), device = lanes[lane].device, foreign = event->device != device;
    counters[device].records++;
    host_now_s += costs.event_host;
    event->at_s = lanes[lane].ready_s > host_now_s ? lanes[lane].ready_s : host_now_s;
    event->recorded = 1;
    event->clock = lanes[lane].clock;
    UNLOCK;
    return foreign ? fail(INVALID_HANDLE) : 0;
}
E cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { return cudaEventRecord(event, stream); }
E cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned flags) {
    LOCK;
    Event *event = (Event *)handle;
    int lane = lane_of(stream);
    counters[lanes[lane].device].waits++;
    counters[lanes[lane].device].unrecorded_waits += !event->recorded; /* no wait at all */
    host_now_s += costs.event_host;
    if (event->at_s > lanes[lane].ready_s) lanes[lane].ready_s = event->at_s;
    note_waited_locked(lane, event);
    UNLOCK;
    return 0;
}
E cudaEventQuery(cudaEvent_t handle) {
    LOCK;
    Event *event = (Event *)handle;
    counters[event->device].queries++;
    host_now_s += 0.5e-6;
    int done = event->at_s <= host_now_s;
    if (done) host_knows_locked(&event->clock);
    UNLOCK;
    return done ? 0 : NOT_READY;
}
E cudaEventSynchronize(cudaEvent_t handle) {
    LOCK;
    Event *event = (Event *)handle;
    int device = event->device;
    counters[device].syncs++;
    host_now_s += costs.sync_host;
    host_until_locked(event->at_s, device);
    host_knows_locked(&event->clock);
    UNLOCK;
    told("cudaEventSynchronize", device, 0);
    return 0;
}
E cudaEventElapsedTime(float *ms, cudaEvent_t earlier, cudaEvent_t later) {
    const Event *from = (Event *)earlier, *to = (Event *)later;
    if ((from->flags | to->flags) & WITHOUT_TIMING || !from->recorded || !to->recorded) return fail(INVALID_HANDLE);
    if (from->at_s > host_now_s || to->at_s > host_now_s) return NOT_READY;
    *ms = (float)((to->at_s - from->at_s) * 1e3);
    return 0;
}
