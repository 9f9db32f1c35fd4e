/* A disk that fails on demand: loaded before libc (LD_PRELOAD), it stands before every system call by which a program
 * touches the files below one folder, counts them by kind, and lets the chosen ones fail. All else passes untouched.
 *
 *     FAULTS_BELOW=/tmp/disk LD_PRELOAD=./faults.so python ...
 *     faults = ctypes.CDLL(None)
 *     faults.faults_arm(b"write", 3, 1, ENOSPC)   the third write from now on fails, once
 *     faults.faults_arm(b"any", 0, -1, EIO)       nothing works any more, for ever
 *     faults.faults_arm(b"write", 3, 1, 0)        the third does half of what was asked
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN, CLOSE, READ, WRITE, SYNC, TRUNCATE, RENAME, UNLINK, STAT, ACCESS, MKDIR, MAP, LOCK, STATFS, KINDS };

static const char *const NAMES[KINDS] = {"open",   "close", "read",   "write", "fsync", "ftruncate", "rename",
                                         "unlink", "stat",  "access", "mkdir", "mmap",  "lock",      "statfs"};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static long seen[KINDS], any_seen;
static struct {
    int kind; /* KINDS: any of them */
    long nth, times;
    int error;
    long failed;
} plan;
static const char *below;

__attribute__((constructor)) static void begin(void) { below = getenv("FAULTS_BELOW"); }

/* for ctypes */

void faults_reset(void) {
    pthread_mutex_lock(&guard);
    memset(seen, 0, sizeof seen);
    memset(&plan, 0, sizeof plan);
    any_seen = 0;
    pthread_mutex_unlock(&guard);
}

static int kind_of(const char *name) {
    for (int kind = 0; kind < KINDS; kind++)
        if (!strcmp(NAMES[kind], name)) return kind;
    return strcmp("any", name) ? -1 : KINDS;
}

/* The nth call from now (0: the next) fails with `error`, and those after it until `times` have (-1: all of them). */
int faults_arm(const char *name, long nth, long times, int error) {
    int kind = kind_of(name);
    if (kind < 0) return -1;
    faults_reset();
    pthread_mutex_lock(&guard);
    plan.kind = kind, plan.nth = nth, plan.times = times, plan.error = error, plan.failed = 0;
    pthread_mutex_unlock(&guard);
    return 0;
}

long faults_seen(const char *name) {
    int kind = kind_of(name);
    return kind < 0 ? -1 : kind == KINDS ? any_seen : seen[kind];
}

long faults_failed(void) { return plan.failed; }

/* what the calls below ask */

static int ours(const char *path) { return below && path && strstr(path, below) != NULL; }

static int ours_fd(int fd) {
    char name[64], target[PATH_MAX];
    if (!below) return 0;
    int kept = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, target, sizeof target - 1);
    errno = kept;
    if (length < 0) return 0;
    target[length] = 0;
    return ours(target);
}

/* Is this one to fail? errno is set then; 0 stands for doing half. */
static int fails(enum kind kind, int concerned) {
    if (!concerned) return 0;
    pthread_mutex_lock(&guard);
    seen[kind]++, any_seen++;
    int hit = 0;
    if (plan.times && (plan.kind == KINDS || plan.kind == (int)kind)) {
        if (plan.nth > 0) {
            plan.nth--;
        } else {
            hit = 1;
            plan.failed++;
            if (plan.times > 0) plan.times--;
        }
    }
    int error = plan.error;
    pthread_mutex_unlock(&guard);
    if (hit) errno = error;
    return hit;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CALL(kind, concerned, failure, name, ...)     \
    do {                                              \
        static __typeof__(&name) real;                \
        if (!real) real = REAL(name);                 \
        if (fails(kind, concerned)) return (failure); \
        return real(__VA_ARGS__);                     \
    } while (0)
#define HALVED(kind, fd, name, buffer, size, ...)           \
    do {                                                    \
        static __typeof__(&name) real;                      \
        if (!real) real = REAL(name);                       \
        if (fails(kind, ours_fd(fd))) {                     \
            if (errno) return -1;                           \
            size = size / 2;                                \
        }                                                   \
        return real(__VA_ARGS__);                           \
    } while (0)

#define MODE(flags, mode)                    \
    mode_t mode = 0;                         \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest;                        \
        va_start(rest, flags);               \
        mode = va_arg(rest, mode_t);         \
        va_end(rest);                        \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    CALL(OPEN, ours(path), -1, open, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    CALL(OPEN, ours(path), -1, open64, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    CALL(OPEN, ours(path) || (*path != '/' && ours_fd(folder)), -1, openat, folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    CALL(OPEN, ours(path) || (*path != '/' && ours_fd(folder)), -1, openat64, folder, path, flags, mode);
}
int creat(const char *path, mode_t mode) { CALL(OPEN, ours(path), -1, creat, path, mode); }

/* Linux closes the descriptor whatever close() says. */
int close(int fd) {
    static __typeof__(&close) real;
    if (!real) real = REAL(close);
    if (!fails(CLOSE, ours_fd(fd))) return real(fd);
    int error = errno;
    real(fd);
    errno = error;
    return -1;
}

ssize_t read(int fd, void *to, size_t size) { HALVED(READ, fd, read, to, size, fd, to, size); }
ssize_t pread(int fd, void *to, size_t size, off_t at) { HALVED(READ, fd, pread, to, size, fd, to, size, at); }
ssize_t pread64(int fd, void *to, size_t size, off64_t at) { HALVED(READ, fd, pread64, to, size, fd, to, size, at); }
ssize_t write(int fd, const void *of, size_t size) { HALVED(WRITE, fd, write, of, size, fd, of, size); }
ssize_t pwrite(int fd, const void *of, size_t size, off_t at) { HALVED(WRITE, fd, pwrite, of, size, fd, of, size, at); }
ssize_t pwrite64(int fd, const void *of, size_t size, off64_t at) {
    HALVED(WRITE, fd, pwrite64, of, size, fd, of, size, at);
}
ssize_t writev(int fd, const struct iovec *of, int count) { CALL(WRITE, ours_fd(fd), -1, writev, fd, of, count); }

int fsync(int fd) { CALL(SYNC, ours_fd(fd), -1, fsync, fd); }
int fdatasync(int fd) { CALL(SYNC, ours_fd(fd), -1, fdatasync, fd); }
int ftruncate(int fd, off_t size) { CALL(TRUNCATE, ours_fd(fd), -1, ftruncate, fd, size); }
int ftruncate64(int fd, off64_t size) { CALL(TRUNCATE, ours_fd(fd), -1, ftruncate64, fd, size); }

int rename(const char *from, const char *to) { CALL(RENAME, ours(from) || ours(to), -1, rename, from, to); }
int link(const char *from, const char *to) { CALL(RENAME, ours(from) || ours(to), -1, link, from, to); }
int unlink(const char *path) { CALL(UNLINK, ours(path), -1, unlink, path); }
int mkdir(const char *path, mode_t mode) { CALL(MKDIR, ours(path), -1, mkdir, path, mode); }
int access(const char *path, int mode) { CALL(ACCESS, ours(path), -1, access, path, mode); }

int stat(const char *path, struct stat *to) { CALL(STAT, ours(path), -1, stat, path, to); }
int stat64(const char *path, struct stat64 *to) { CALL(STAT, ours(path), -1, stat64, path, to); }
int lstat(const char *path, struct stat *to) { CALL(STAT, ours(path), -1, lstat, path, to); }
int lstat64(const char *path, struct stat64 *to) { CALL(STAT, ours(path), -1, lstat64, path, to); }
int fstat(int fd, struct stat *to) { CALL(STAT, ours_fd(fd), -1, fstat, fd, to); }
int fstat64(int fd, struct stat64 *to) { CALL(STAT, ours_fd(fd), -1, fstat64, fd, to); }
int fstatat(int folder, const char *path, struct stat *to, int flags) {
    CALL(STAT, ours(path), -1, fstatat, folder, path, to, flags);
}
int fstatat64(int folder, const char *path, struct stat64 *to, int flags) {
    CALL(STAT, ours(path), -1, fstatat64, folder, path, to, flags);
}

void *mmap(void *at, size_t size, int may, int flags, int fd, off_t from) {
    CALL(MAP, fd >= 0 && ours_fd(fd), MAP_FAILED, mmap, at, size, may, flags, fd, from);
}
void *mmap64(void *at, size_t size, int may, int flags, int fd, off64_t from) {
    CALL(MAP, fd >= 0 && ours_fd(fd), MAP_FAILED, mmap64, at, size, may, flags, fd, from);
}

#define ARGUMENT(command, argument)         \
    va_list rest;                           \
    va_start(rest, command);                \
    void *argument = va_arg(rest, void *);  \
    va_end(rest);

/* Taking and asking; letting go never fails. The commands and their struct are the same in both calls on 64 bits. */
static int takes_lock(int command, const struct flock *wish) {
    int locks = command == F_SETLK || command == F_SETLKW || command == F_GETLK || command == F_OFD_SETLK ||
                command == F_OFD_SETLKW;
    return locks && wish->l_type != F_UNLCK;
}

int fcntl(int fd, int command, ...) {
    ARGUMENT(command, argument)
    CALL(LOCK, takes_lock(command, argument) && ours_fd(fd), -1, fcntl, fd, command, argument);
}
int fcntl64(int fd, int command, ...) {
    ARGUMENT(command, argument)
    CALL(LOCK, takes_lock(command, argument) && ours_fd(fd), -1, fcntl64, fd, command, argument);
}

int statfs(const char *path, struct statfs *to) { CALL(STATFS, ours(path), -1, statfs, path, to); }
int statfs64(const char *path, struct statfs64 *to) { CALL(STATFS, ours(path), -1, statfs64, path, to); }
int fstatfs(int fd, struct statfs *to) { CALL(STATFS, ours_fd(fd), -1, fstatfs, fd, to); }
int fstatfs64(int fd, struct statfs64 *to) { CALL(STATFS, ours_fd(fd), -1, fstatfs64, fd, to); }
int statvfs(const char *path, struct statvfs *to) { CALL(STATFS, ours(path), -1, statvfs, path, to); }
int statvfs64(const char *path, struct statvfs64 *to) { CALL(STATFS, ours(path), -1, statvfs64, path, to); }
int fstatvfs(int fd, struct statvfs *to) { CALL(STATFS, ours_fd(fd), -1, fstatvfs, fd, to); }
int fstatvfs64(int fd, struct statvfs64 *to) { CALL(STATFS, ours_fd(fd), -1, fstatvfs64, fd, to); }

/* SQLite waits for a denied lock, five to ten seconds in all, between tries: here a hundredth of that. */
int usleep(useconds_t time) {
    static __typeof__(&usleep) real;
    if (!real) real = REAL(usleep);
    return real(below ? time / 100 : time);
}
