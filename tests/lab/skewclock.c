/* Shifts the wall clock of one process, preloaded into it, by the seconds in the file that SKEWCLOCK_FILE names. Two more
   numbers, if they are there, make its CLOCK_BOOTTIME run faster: by that share, since that true CLOCK_BOOTTIME. The file
   is looked at ten times a second, so the clock can be stepped while the process runs. CLOCK_MONOTONIC and all sleeps
   stay true. (Debian's libfaketime 0.9.10 breaks time.sleep of Python 3.11.)

   gcc -shared -fPIC -O2 -o skewclock.so skewclock.c */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000LL
#define LOOK_EVERY_NS (SECOND_NS / 10)

static long long skew_ns;
static double faster, since_s;

static void look(void) {
    const char *name = getenv("SKEWCLOCK_FILE");
    char text[64];
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length > 0) {
        text[length] = 0;
        char *rest = text;
        skew_ns = (long long)(strtod(rest, &rest) * SECOND_NS);
        double share = strtod(rest, &rest);
        since_s = strtod(rest, &rest);
        faster = share;
    }
}

static long long present_skew_ns(void) {
    static __thread long long next_ns;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    long long now_ns = now.tv_sec * SECOND_NS + now.tv_nsec;
    if (now_ns >= next_ns) {
        next_ns = now_ns + LOOK_EVERY_NS;
        look();
    }
    return skew_ns;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        long long shifted_ns = time->tv_sec * SECOND_NS + time->tv_nsec + present_skew_ns();
        time->tv_sec = shifted_ns / SECOND_NS;
        time->tv_nsec = shifted_ns % SECOND_NS;
    }
    if (result == 0 && clock == CLOCK_BOOTTIME) {
        present_skew_ns();
        long long true_ns = time->tv_sec * SECOND_NS + time->tv_nsec;
        long long faster_ns = true_ns + (faster == 0 ? 0 : (long long)((true_ns - since_s * SECOND_NS) * faster));
        time->tv_sec = faster_ns / SECOND_NS;
        time->tv_nsec = faster_ns % SECOND_NS;
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    if (zone)
        memset(zone, 0, sizeof(struct timezone));
    if (!time)
        return 0;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
