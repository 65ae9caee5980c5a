/* Loaded before the C library of one node: fails or delays its syncs and shifts its wall clock, as
 * the control file named by CLUSTER_TESTS_SHIM says. Compiled when a scenario needs it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
    int64_t clock_ms;   /* added to the wall clock */
    int32_t fail_syncs; /* so many syncs fail with EIO */
    int32_t failed;     /* syncs that failed so far */
};

static struct control off;
static struct control *control = &off;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CLUSTER_TESTS_SHIM");
    int fd = path ? open(path, O_RDWR) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) control = at;
}

static int fails(void) {
    int32_t left = __atomic_load_n(&control->fail_syncs, __ATOMIC_ACQUIRE);
    while (left > 0) {
        if (__atomic_compare_exchange_n(&control->fail_syncs, &left, left - 1, 0,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            __atomic_add_fetch(&control->failed, 1, __ATOMIC_ACQ_REL);
            return 1;
        }
    }
    return 0;
}

#define REAL(name)                 \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int fsync(int fd) {
    REAL(fsync);
    if (fails()) { errno = EIO; return -1; }
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    if (fails()) { errno = EIO; return -1; }
    return real(fd);
}

static void shift(struct timespec *t) {
    int64_t ms = __atomic_load_n(&control->clock_ms, __ATOMIC_ACQUIRE);
    int64_t ns = t->tv_nsec + (ms % 1000) * 1000000;
    t->tv_sec += ms / 1000;
    if (ns < 0) { ns += 1000000000; t->tv_sec -= 1; }
    if (ns >= 1000000000) { ns -= 1000000000; t->tv_sec += 1; }
    t->tv_nsec = ns;
}

int clock_gettime(clockid_t id, struct timespec *t) {
    REAL(clock_gettime);
    int done = real(id, t);
    if (done == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) shift(t);
    return done;
}

int gettimeofday(struct timeval *tv, void *zone) {
    struct timespec t;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &t) != 0) return -1;
    tv->tv_sec = t.tv_sec;
    tv->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec t;
    if (clock_gettime(CLOCK_REALTIME, &t) != 0) return (time_t)-1;
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
