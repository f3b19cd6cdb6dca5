/*
 * Prints how many nanoseconds a cache line needs to another core and back.
 *
 *   distance CORE CORE
 *
 * Two threads hand one word back and forth. The quickest of many short batches
 * counts, so other processes on these cores do not show.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BATCHES = 100, TRIPS = 200 };

static _Alignas(64) atomic_int word;

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("distance");
        exit(1);
    }
}

static void hand_over(int mine, int theirs)
{
    while (atomic_load_explicit(&word, memory_order_acquire) != mine)
        ;
    atomic_store_explicit(&word, theirs, memory_order_release);
}

static void *answer(void *core)
{
    pin(*(int *)core);
    for (int i = 0; i < BATCHES * TRIPS; i++)
        hand_over(1, 0);
    return NULL;
}

static int64_t nanoseconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    if (argc != 3) {
        fprintf(stderr, "usage: distance CORE CORE\n");
        return 2;
    }
    int far = atoi(argv[2]);
    pin(atoi(argv[1]));
    if (pthread_create(&thread, NULL, answer, &far)) {
        fprintf(stderr, "distance: no second thread\n");
        return 1;
    }
    int64_t best = INT64_MAX;
    for (int batch = 0; batch < BATCHES; batch++) {
        int64_t start = nanoseconds();
        for (int i = 0; i < TRIPS; i++)
            hand_over(0, 1);
        int64_t took = nanoseconds() - start;
        if (took < best)
            best = took;
    }
    printf("%lld\n", (long long)(best / TRIPS));
    return 0;
}
