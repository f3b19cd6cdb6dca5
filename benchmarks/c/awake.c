/*
 * Keeps the core it runs on from going to sleep, and leaves it to whoever wants it.
 *
 * A virtual core that halts may be put elsewhere by its host when it wakes: now
 * next to the other one, now far from it (see distance.c), which changes what a
 * loopback send costs by a factor of 2.5 from one second to the next. SCHED_IDLE
 * gives way to every other process, so nothing measured waits for this one.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>

int main(void)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) || sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0})) {
        perror("awake");
        return 1;
    }
    for (;;) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    }
}
