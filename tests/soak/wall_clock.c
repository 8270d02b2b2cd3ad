/* Preloaded into the agent: its wall clock is off by the seconds in the file $WALL_CLOCK, a native long that may change at
 * any time. The monotonic clocks and the times of files are the host's, which no test may set. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long *ahead;

__attribute__((constructor)) static void find_offset(void)
{
    int file = open(getenv("WALL_CLOCK"), O_RDONLY);
    void *place = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    ahead = place == MAP_FAILED ? NULL : place;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at)
{
    int failed = syscall(SYS_clock_gettime, clock, at);
    if (!failed && clock == CLOCK_REALTIME && ahead)
        at->tv_sec += *ahead;
    return failed;
}
