/* What happens before what: vector clocks of lanes, events and the host, and a history of who touched which bytes.
 *
 * A piece of work is ordered behind another if its lane's clock has reached that piece. Known exactly: what copies and
 * memsets read and write, and which addresses a kernel was given. Whether a kernel reads or writes there isn't known, so
 * two kernels never race with one another here; a kernel races with a copy that isn't ordered before it, and a write
 * with any kernel that isn't. All host threads share one clock, as if each told the others what it waited for.
 */
#include "simulated.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uintptr_t start, end; int lane; uint64_t piece; const char *what; } Access;
typedef struct { Access *list; int count, room; } Accesses;
static Accesses writes;      /* disjoint, sorted by address: the last one for each byte */
static Accesses uses;        /* of kernels since then: addresses, sorted; one entry for each lane */
static Accesses reads;       /* of copies since then: ranges, unsorted */
Clock host_clock;

/* ---- clocks ---- */
static void join(Clock *into, const Clock *from) {
    for (int i = 0; i < lane_count; i++)
        if (from->at[i] > into->at[i]) into->at[i] = from->at[i];
}
void note_enqueued_locked(int lane) {
    join(&lanes[lane].clock, &host_clock);
    lanes[lane].clock.at[lane]++;
}
void note_waited_locked(int lane, const Event *event) { join(&lanes[lane].clock, &event->clock); }
void host_knows_locked(const Clock *clock) {
    join(&host_clock, clock);
    run_due_copies_locked();
}
void host_knows_device_locked(int device) {
    for (int i = 0; i < lane_count; i++)
        if (device < 0 || lanes[i].device == device) join(&host_clock, &lanes[i].clock);
    run_due_copies_locked();
}
static int ordered(const Access *earlier, int lane) { return lanes[lane].clock.at[earlier->lane] >= earlier->piece; }

/* ---- lists of accesses ---- */
static int first_after(const Accesses *list, uintptr_t address) { /* first whose start is beyond `address` */
    int low = 0, high = list->count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (list->list[middle].start <= address) low = middle + 1; else high = middle;
    }
    return low;
}
static void insert(Accesses *into, int at, Access access) {
    if (into->count == into->room) {
        into->room = into->room * 2 + 256;
        into->list = realloc(into->list, sizeof(Access) * into->room);
    }
    memmove(into->list + at + 1, into->list + at, sizeof(Access) * (into->count - at));
    into->list[at] = access;
    into->count++;
}
static void erase(Accesses *from, int at, int count) {
    memmove(from->list + at, from->list + at + count, sizeof(Access) * (from->count - at - count));
    from->count -= count;
}

/* Cuts [start, end) out of the disjoint list, and returns where an entry for it belongs. */
static int cut(Accesses *list, uintptr_t start, uintptr_t end) {
    int at = first_after(list, start);
    if (at && list->list[at - 1].end > start) at--;
    while (at < list->count && list->list[at].start < end) {
        Access old = list->list[at];
        erase(list, at, 1);
        if (old.start < start) insert(list, at++, (Access){old.start, start, old.lane, old.piece, old.what});
        if (old.end > end) {
            insert(list, at, (Access){end, old.end, old.lane, old.piece, old.what});
            break;
        }
    }
    return at;
}
static void forget_within(Accesses *unsorted, uintptr_t start, uintptr_t end) {
    int kept = 0;
    for (int i = 0; i < unsorted->count; i++)
        if (unsorted->list[i].start < start || unsorted->list[i].end > end) unsorted->list[kept++] = unsorted->list[i];
    unsorted->count = kept;
}
void forget_accesses_locked(const void *start, size_t bytes) {
    uintptr_t from = (uintptr_t)start, to = from + bytes;
    cut(&writes, from, to);
    int first = first_after(&uses, from ? from - 1 : 0);
    erase(&uses, first, first_after(&uses, to - 1) - first);
    forget_within(&reads, from, to);
}

/* ---- checks ---- */
static void check(const Access *earlier, int lane, const char *what, uintptr_t at) {
    if (earlier->lane == lane || ordered(earlier, lane)) return;
    violation_locked("at %#lx %.90s on lane %d (device %d) is not ordered behind %.90s on lane %d (device %d)", (unsigned long)at,
                     what, lane, lanes[lane].device, earlier->what, earlier->lane, lanes[earlier->lane].device);
}
static void check_writes(int lane, uintptr_t start, uintptr_t end, const char *what) {
    int at = first_after(&writes, start);
    if (at && writes.list[at - 1].end > start) at--;
    for (; at < writes.count && writes.list[at].start < end; at++) check(&writes.list[at], lane, what, start);
}
static void check_uses(int lane, uintptr_t start, uintptr_t end, const char *what) {
    for (int at = first_after(&uses, start ? start - 1 : 0); at < uses.count && uses.list[at].start < end; at++)
        check(&uses.list[at], lane, what, uses.list[at].start);
}

/* A kernel that was just enqueued on `lane` was given this address. */
void kernel_uses_locked(int lane, const void *pointer, const char *kernel) {
    uintptr_t at = (uintptr_t)pointer;
    const Range *range = range_of_locked(pointer);
    if (!range) return;
    if (range->kind == ON_DEVICE && range->device != lanes[lane].device)
        violation_locked("kernel %.90s on device %d uses memory of device %d", kernel, lanes[lane].device, range->device);
    check_writes(lane, at, at + 1, kernel);
    Access use = {at, at + 1, lane, lanes[lane].clock.at[lane], kernel};
    int first = first_after(&uses, at - 1);
    for (; first < uses.count && uses.list[first].start == at; first++)
        if (uses.list[first].lane == lane) {
            uses.list[first] = use;
            return;
        }
    insert(&uses, first, use);
}

void copy_reads_locked(int lane, const void *start, size_t bytes, const char *what) {
    uintptr_t from = (uintptr_t)start, to = from + bytes;
    check_writes(lane, from, to, what);
    check_uses(lane, from, to, what); /* they may have written what the copy takes */
    Access read = {from, to, lane, lanes[lane].clock.at[lane], what};
    for (int i = 0; i < reads.count; i++)
        if (reads.list[i].start == from && reads.list[i].end == to && reads.list[i].lane == lane) {
            reads.list[i] = read;
            return;
        }
    insert(&reads, reads.count, read);
}

void writes_locked(int lane, const void *start, size_t bytes, const char *what) {
    uintptr_t from = (uintptr_t)start, to = from + bytes;
    check_writes(lane, from, to, what);
    check_uses(lane, from, to, what);
    for (int i = 0; i < reads.count; i++)
        if (reads.list[i].start < to && reads.list[i].end > from) check(&reads.list[i], lane, what, from);
    forget_accesses_locked(start, bytes);
    insert(&writes, cut(&writes, from, to), (Access){from, to, lane, lanes[lane].clock.at[lane], what});
}

/* Whether a copy may still read or write host memory there: the host has not waited for it. */
int still_read_locked(const void *start, size_t bytes) {
    uintptr_t from = (uintptr_t)start, to = from + bytes;
    for (int i = 0; i < reads.count; i++) {
        const Access *read = &reads.list[i];
        if (read->start < to && read->end > from && host_clock.at[read->lane] < read->piece) return 1;
    }
    return 0;
}
