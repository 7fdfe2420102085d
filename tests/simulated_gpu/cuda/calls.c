/* Errors, refusals at the n-th call, a watcher that is told of calls that cost, counters, the report at the end. */
#include "simulated.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

pthread_mutex_t simulated_mutex = PTHREAD_MUTEX_INITIALIZER;
Counters counters[DEVICES];
__thread int current_device;
static __thread int last_error;

/* ---- errors ---- */
E fail(int code) { last_error = code; return (E)code; }
E cudaGetLastError(void) { int code = last_error; last_error = 0; return (E)code; }
E cudaPeekAtLastError(void) { return (E)last_error; }
const char *cudaGetErrorName(E error) { return (int)error == OUT_OF_MEMORY ? "cudaErrorMemoryAllocation" : "cudaErrorSimulated"; }
const char *cudaGetErrorString(E error) {
    static __thread char other[48];
    switch ((int)error) {
        case 0: return "no error";
        case INVALID_VALUE: return "invalid argument";
        case OUT_OF_MEMORY: return "out of memory";
        case 100: return "no CUDA-capable device is detected";
        case INVALID_DEVICE: return "invalid device ordinal";
        case INVALID_HANDLE: return "invalid resource handle";
        case NOT_READY: return "device not ready";
        case ALREADY_REGISTERED: return "part or all of the requested memory range is already mapped";
        case NOT_REGISTERED: return "pointer does not correspond to a registered memory region";
        case 801: return "operation not supported";
    }
    snprintf(other, sizeof other, "error %d of the simulated GPU", (int)error);
    return other;
}

long setting(const char *name, int device, long otherwise) {
    const char *text = getenv(name);
    for (; text && device > 0 && strchr(text, ','); device--) text = strchr(text, ',') + 1;
    return text && *text ? atol(text) : otherwise;
}

/* ---- refusals: SIM_REFUSE=call:nth:code,… or `sim_refuse` ---- */
typedef struct { char call[48]; long left; int code; } Refusal;
static Refusal refusals[16];
static int refusal_count = -1;

static void read_refusals_locked(void) {
    refusal_count = 0;
    const char *text = getenv("SIM_REFUSE");
    while (text && *text && refusal_count < 16) {
        Refusal *each = &refusals[refusal_count];
        if (sscanf(text, "%47[^:]:%ld:%d", each->call, &each->left, &each->code) == 3) refusal_count++;
        text = strchr(text, ',');
        if (text) text++;
    }
}
/* From now on the `nth` call fails with `code`, and no other; a negative `nth` refuses all from that one on; 0 forgets. */
void sim_refuse(const char *call, long nth, int code) {
    LOCK;
    if (refusal_count < 0) read_refusals_locked();
    int at = 0;
    while (at < refusal_count && strcmp(refusals[at].call, call)) at++;
    if (at < 16) {
        snprintf(refusals[at].call, sizeof refusals[at].call, "%s", call);
        refusals[at].left = nth;
        refusals[at].code = code;
        if (at == refusal_count) refusal_count++;
    }
    UNLOCK;
}
int refused(const char *call) {
    int code = 0;
    LOCK;
    if (refusal_count < 0) read_refusals_locked();
    for (int i = 0; i < refusal_count; i++) {
        Refusal *each = &refusals[i];
        if (strcmp(each->call, call) || !each->left) continue;
        if (each->left == 1 || each->left == -1) code = each->code; /* -1 stays: everything from here on */
        each->left += each->left > 0 ? -1 : each->left < -1 ? 1 : 0;
    }
    counters[current_device].refusals += code != 0;
    UNLOCK;
    return code;
}

/* ---- a watcher, such as one that writes down Python's stack ---- */
typedef void (*Watcher)(const char *call, int device, double bytes);
static Watcher watcher;
void sim_watch(Watcher wanted) { watcher = wanted; }
void told(const char *call, int device, double bytes) { if (watcher) watcher(call, device, bytes); }

/* ---- counters ---- */
#define NAME(name) #name " "
const char *sim_counter_names(void) { return COUNTERS(NAME) LEVELS(NAME); }
void sim_counters(int device, double *values) { LOCK; memcpy(values, &counters[device], sizeof(Counters)); UNLOCK; }
void sim_count_anew(void) {
    LOCK;
    for (int device = 0; device < DEVICES; device++) {
        Counters *each = &counters[device];
        memset(each, 0, offsetof(Counters, used_bytes));
        each->used_peak_bytes = each->used_bytes;
        each->pinned_peak_bytes = each->pinned_bytes;
    }
    UNLOCK;
}

/* ---- what order.c found, and at the process's end, for one that nobody looks into, a line of JSON in SIM_REPORT ---- */
enum { KEPT = 64, LENGTH = 320 };
static char violations[KEPT][LENGTH];
static long violation_count;
void violation_locked(const char *format, ...) {
    char text[LENGTH];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (violation_count < KEPT) memcpy(violations[violation_count], text, sizeof text);
    violation_count++;
}
long sim_violation_count(void) { return violation_count; }
const char *sim_violation(long index) { return index < violation_count && index < KEPT ? violations[index] : ""; }
void sim_forget_violations(void) { LOCK; violation_count = 0; UNLOCK; }

#define SHOWN(name) fprintf(file, ", \"" #name "\": %.15g", counters[device].name);
__attribute__((destructor)) static void report(void) {
    const char *path = getenv("SIM_REPORT");
    FILE *file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "{\"virtual_s\": %.9f, \"violations\": [", host_now_s);
    for (long i = 0; i < violation_count && i < KEPT; i++) {
        fprintf(file, i ? ", \"" : "\"");
        for (const char *c = violations[i]; *c; c++) fputc(*c == '"' || *c == '\\' ? '\'' : *c, file);
        fputc('"', file);
    }
    fprintf(file, "], \"violation_count\": %ld, \"devices\": [", violation_count);
    for (int device = 0; device < DEVICES; device++) {
        fprintf(file, "%s{\"device\": %d", device ? ", " : "", device);
        COUNTERS(SHOWN) LEVELS(SHOWN)
        fputc('}', file);
    }
    fprintf(file, "]}\n");
    fclose(file);
}
