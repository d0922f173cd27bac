/* Disturbs and records the file operations of a process: scripts/campaign_library.py loads it.
 *
 * A plan is "root|trace|op|name|nth|count|errno|how|jump": operations on paths below `root` are
 * appended to the file `trace` (none if empty). From the nth operation of kind `op` on a path that
 * contains `name`, `count` of them go wrong in the way `how`. After `jump` looks the clock of the
 * day moves by `errno` hours (op = clock).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ERROR, SHORT, SLOW, KILL_BEFORE, KILL_AFTER, KILL_AMID, ERROR_AMID };

#define FDS 4096
static char root[4096], trace[4096], op[32], name[256];
static int nth, count, err, how, seen, clock_seen, is_on, trace_fd = -1;
static char *paths[FDS];

#define NEXT(symbol) \
    static __typeof__(&symbol) real; \
    if (!real) real = (__typeof__(&symbol))dlsym(RTLD_NEXT, #symbol)

/* ---- the plan ---- */

static void field(char **from, char *to, size_t size) {
    char *end = strchr(*from, '|');
    size_t length = end ? (size_t)(end - *from) : strlen(*from);
    if (length >= size) length = size - 1;
    memcpy(to, *from, length);
    to[length] = 0;
    *from += length + (end != NULL);
}

static int number(char **from) {
    char text[32];
    field(from, text, sizeof text);
    return atoi(text);
}

void campaign_start(char *plan) {
    field(&plan, root, sizeof root);
    field(&plan, trace, sizeof trace);
    field(&plan, op, sizeof op);
    field(&plan, name, sizeof name);
    nth = number(&plan), count = number(&plan), err = number(&plan), how = number(&plan);
    seen = clock_seen = 0;
    if (trace[0]) {
        NEXT(open);
        trace_fd = real(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }
    is_on = 1;
}

__attribute__((constructor)) static void from_environment(void) {
    char *plan = getenv("CAMPAIGN_PLAN");
    if (plan) campaign_start(plan);
}

static int is_ours(const char *path) {
    return is_on && path && !strncmp(path, root, strlen(root));
}

static const char *path_of(int fd) { return fd >= 0 && fd < FDS ? paths[fd] : NULL; }

static void record(const char *what, const char *path, const char *other, long offset,
                   const void *data, size_t length) {
    if (trace_fd < 0) return;
    NEXT(write);
    char head[9000];
    int size = snprintf(head, sizeof head, "%s\t%s\t%s\t%ld\t%zu\n", what, path, other, offset,
                        length);
    if (real(trace_fd, head, size) != size) abort();
    if (length && real(trace_fd, data, length) != (ssize_t)length) abort();
}

/* 1 if this operation goes wrong. `any` stands for each operation that changes something. */
static int goes_wrong(const char *what, const char *path, int changes) {
    if (!is_ours(path) || !op[0] || !strstr(path, name)) return 0;
    if (strcmp(op, what) && !(changes && !strcmp(op, "any"))) return 0;
    seen++;
    if (seen < nth || (count > 0 && seen >= nth + count)) return 0;
    if (how == SLOW) {
        usleep(100000);
        return 0;
    }
    if (how == KILL_BEFORE) raise(SIGKILL);
    if (how == ERROR) errno = err;
    return 1;
}

static void after(int wrong) {
    if (wrong && (how == KILL_AFTER || how == KILL_AMID)) raise(SIGKILL);
}

/* 1 if the operation is made; with ERROR_AMID only a write is made in part. */
#define IS_MADE(wrong) (!(wrong) || how == SHORT || how == KILL_AFTER || how == KILL_AMID)
#define REFUSE return errno = err, -1

/* ---- operations ---- */

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= FDS || !is_ours(path)) return fd;
    free(paths[fd]);
    paths[fd] = strdup(path);
    if (!existed) record("create", path, "", 0, NULL, 0);
    else if (flags & O_TRUNC) record("truncate", path, "", 0, NULL, 0);
    return fd;
}

static int open_any(const char *symbol, const char *path, int flags, int mode) {
    int (*real)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, symbol);
    int is_write = (flags & O_ACCMODE) != O_RDONLY, existed = !access(path, F_OK), saved = errno;
    if (!is_ours(path)) return real(path, flags, mode);
    int wrong = goes_wrong(is_write ? "open" : "look", path, is_write);
    if (!IS_MADE(wrong)) REFUSE;
    errno = saved;
    int fd = opened(real(path, flags, mode), path, flags, existed);
    after(wrong);
    return fd;
}

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        va_list more; \
        va_start(more, flags); \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0; \
        va_end(more); \
        return open_any(#symbol, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    NEXT(close);
    if (fd >= 0 && fd < FDS && paths[fd]) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t length) {
    NEXT(write);
    const char *path = path_of(fd);
    if (!path) return real(fd, data, length);
    int wrong = goes_wrong("write", path, 1);
    if (wrong && how == ERROR) REFUSE;
    if (wrong && length > 1 && how != KILL_AFTER) length = length / 2;
    long offset = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
    ssize_t done = real(fd, data, length);
    if (done > 0) record("write", path, "", offset, data, done);
    after(wrong);
    if (wrong && how == ERROR_AMID) REFUSE;
    return done;
}

ssize_t read(int fd, void *data, size_t length) {
    NEXT(read);
    const char *path = path_of(fd);
    int wrong = path && goes_wrong("read", path, 0);
    if (wrong && how == ERROR) REFUSE;
    return real(fd, data, wrong && length > 1 ? length / 2 : length);
}

static int sync_any(const char *symbol, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, symbol);
    const char *path = path_of(fd);
    if (!path) return real(fd);
    struct stat found;
    int is_folder = !fstat(fd, &found) && S_ISDIR(found.st_mode);
    int wrong = goes_wrong(is_folder ? "sync_folder" : "sync", path, 1);
    if (!IS_MADE(wrong)) REFUSE;
    record("sync", path, "", 0, NULL, 0);  /* on disk as far as replays go: no real flush */
    after(wrong);
    return 0;
}
int fsync(int fd) { return sync_any("fsync", fd); }
int fdatasync(int fd) { return sync_any("fdatasync", fd); }

int rename(const char *from, const char *to) {
    NEXT(rename);
    int wrong = goes_wrong("rename", to, 1);
    if (!IS_MADE(wrong)) REFUSE;
    int done = real(from, to);
    if (!done && is_ours(to)) record("rename", from, to, 0, NULL, 0);
    after(wrong);
    return done;
}

int unlink(const char *path) {
    NEXT(unlink);
    int wrong = goes_wrong("unlink", path, 1);
    if (!IS_MADE(wrong)) REFUSE;
    int done = real(path);
    if (!done && is_ours(path)) record("unlink", path, "", 0, NULL, 0);
    after(wrong);
    return done;
}

int mkdir(const char *path, mode_t mode) {
    NEXT(mkdir);
    int wrong = goes_wrong("mkdir", path, 1);
    if (!IS_MADE(wrong)) REFUSE;
    int done = real(path, mode);
    if (!done && is_ours(path)) record("mkdir", path, "", 0, NULL, 0);
    after(wrong);
    return done;
}

static int truncate_any(const char *symbol, int fd, off_t length) {
    int (*real)(int, off_t) = (int (*)(int, off_t))dlsym(RTLD_NEXT, symbol);
    const char *path = path_of(fd);
    int wrong = path && goes_wrong("truncate", path, 1);
    if (!IS_MADE(wrong)) REFUSE;
    int done = real(fd, length);
    if (!done && path) record("truncate", path, "", (long)length, NULL, 0);
    after(wrong);
    return done;
}
int ftruncate(int fd, off_t length) { return truncate_any("ftruncate", fd, length); }
int ftruncate64(int fd, off_t length) { return truncate_any("ftruncate64", fd, length); }

static int fcntl_any(const char *symbol, int fd, int command, void *argument) {
    int (*real)(int, int, ...) = (int (*)(int, int, ...))dlsym(RTLD_NEXT, symbol);
    const char *path = path_of(fd);
    if (path && (command == F_SETLK || command == F_SETLKW) && goes_wrong("lock", path, 0)) REFUSE;
    return real(fd, command, argument);
}

#define FCNTL(symbol) \
    int symbol(int fd, int command, ...) { \
        va_list more; \
        va_start(more, command); \
        void *argument = va_arg(more, void *); \
        va_end(more); \
        return fcntl_any(#symbol, fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

int flock(int fd, int operation) {
    NEXT(flock);
    const char *path = path_of(fd);
    if (path && goes_wrong("flock", path, 0)) REFUSE;
    return real(fd, operation);
}

DIR *opendir(const char *path) {
    NEXT(opendir);
    if (goes_wrong("list", path, 0)) return errno = err, NULL;
    return real(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    NEXT(clock_gettime);
    int done = real(clock, now);
    if (is_on && clock == CLOCK_REALTIME && !strcmp(op, "clock") && ++clock_seen >= nth)
        now->tv_sec += 3600L * err;
    return done;
}
