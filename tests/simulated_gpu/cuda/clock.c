/* Virtual time: one host clock, a time for each lane at which its last work ends, three engines for each device.
 *
 * An engine works on one thing at a time (compute, copies to the device, copies from it). Work is placed at the earliest
 * gap of its engine that is not before its lane's time, nor before the host enqueued it.
 */
#include "simulated.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Costs costs = {25e9, 9e9, 800e9, 10e9, 4e-6, 4e-6, 2e-6, 2e-6, 5e-6, 5e-6, 200e-6, 200e-6, 4e9, 20e-6, 10e-6, 1024};
double host_now_s;
LaneState lanes[LANES];
int lane_count = OWN_LANES;

typedef struct { double start, end; } Busy;
typedef struct { Busy *list; int count, room; } Engine;
static Engine engines[DEVICES][ENGINES];
static double next_kernel_s = -1;
static FILE *trace;
enum { MOST_QUEUED = 4096 };

/* ---- for the program that simulates ---- */
void sim_configure(const double *values, int count) { LOCK; memcpy(&costs, values, sizeof(double) * count); UNLOCK; }
double sim_now(void) { return host_now_s; }
void sim_host(double seconds) { LOCK; host_now_s += seconds; UNLOCK; }   /* the host works */
void sim_cost(double seconds) { LOCK; next_kernel_s = seconds; UNLOCK; } /* of the next launch; below zero: the default */
void sim_trace(const char *path) {
    LOCK;
    if (trace) fclose(trace);
    trace = path ? fopen(path, "w") : NULL;
    UNLOCK;
}

int lane_of(const void *stream) {
    uintptr_t handle = (uintptr_t)stream;
    int lane = handle < 0x1000 ? current_device : (int)((handle - 0x1000) / 16);
    if (lane < DEVICES) lanes[lane].device = lane;
    return lane;
}

void host_until_locked(double moment_s, int device) {
    if (moment_s <= host_now_s) return;
    counters[device].blocked_s += moment_s - host_now_s;
    host_now_s = moment_s;
}

double all_done_locked(int device) {
    double moment_s = 0;
    for (int i = 0; i < lane_count; i++)
        if ((device < 0 || lanes[i].device == device) && lanes[i].ready_s > moment_s) moment_s = lanes[i].ready_s;
    return moment_s;
}

static void forget_past(Engine *engine) {
    int past = 0;
    while (past < engine->count && engine->list[past].end < host_now_s) past++;
    if (past <= 256) return;
    memmove(engine->list, engine->list + past, sizeof(Busy) * (engine->count - past));
    engine->count -= past;
}

/* When `seconds` of work that is ready at `ready_s` begins; the engine is busy with it from then on. */
static double placed(Engine *engine, double ready_s, double seconds) {
    forget_past(engine);
    double start = ready_s;
    int i = engine->count;
    while (i > 0 && engine->list[i - 1].end > start) i--; /* the first interval that ends after `start` */
    for (; i < engine->count && engine->list[i].start < start + seconds; i++)
        if (engine->list[i].end > start) start = engine->list[i].end;
    if (i > 0 && engine->list[i - 1].end == start) {
        engine->list[i - 1].end = start + seconds;
        return start;
    }
    if (engine->count == engine->room) {
        engine->room = engine->room * 2 + 64;
        engine->list = realloc(engine->list, sizeof(Busy) * engine->room);
    }
    memmove(engine->list + i + 1, engine->list + i, sizeof(Busy) * (engine->count - i));
    engine->list[i] = (Busy){start, start + seconds};
    engine->count++;
    return start;
}

static double *busy_s(int device, EngineKind engine) {
    Counters *of = &counters[device];
    return engine == COMPUTE ? &of->compute_busy_s : engine == TO_DEVICE ? &of->h2d_busy_s : &of->d2h_busy_s;
}

/* Enqueues work; returns when it ends. A full queue makes the host wait for the oldest work in it. */
double enqueue_locked(EngineKind engine, int lane, double latency_s, double seconds, const char *what, double bytes) {
    LaneState *on = &lanes[lane];
    int depth = (int)costs.queue_depth < MOST_QUEUED ? (int)costs.queue_depth : MOST_QUEUED;
    if (!on->ends_s) on->ends_s = calloc(MOST_QUEUED, sizeof(double));
    if (on->enqueued >= depth) host_until_locked(on->ends_s[(on->enqueued - depth) % MOST_QUEUED], on->device);
    double ready_s = host_now_s + latency_s;
    if (on->ready_s > ready_s) ready_s = on->ready_s;
    double start = placed(&engines[on->device][engine], ready_s, seconds), end = start + seconds;
    *busy_s(on->device, engine) += seconds;
    on->ready_s = end;
    on->ends_s[on->enqueued++ % MOST_QUEUED] = end;
    note_enqueued_locked(lane);
    if (trace) fprintf(trace, "%s %d %d %.9f %.9f %.0f %.9f\n", what, on->device, lane, start, end, bytes, host_now_s);
    return end;
}

/* An op's whole cost lies on its first launch: the ones after it have the default. */
double kernel_seconds_locked(void) {
    double seconds = next_kernel_s >= 0 ? next_kernel_s : costs.launch_default;
    if (next_kernel_s >= 0) next_kernel_s = costs.launch_default;
    return seconds;
}
