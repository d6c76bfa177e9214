/*
 * Operations whose cost is measured, with as little as possible around them.
 *
 *   workload peer SHARED                       the other end; ends when it is killed
 *   workload run SHARED FILE RESULT [RELEASE]  every operation; then sleeps until RELEASE,
 *                                              a FIFO, is opened for writing
 *
 * RESULT gets a line for each operation: its name, how often it was repeated in a batch, and
 * the time stamp counter's difference for each batch. Where the emulator counts instructions
 * (-icount shift=0), the counter advances by one for each.
 *
 * Both processes have real-time priority, so that on one processor nothing but an interrupt
 * comes between an operation and the next: the peer runs only when it is called.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <x86intrin.h>

#define BATCHES 21 /* after WARM that are thrown away */
#define WARM 4
#define MOST 200 /* batches, with those that are repeated */
#define PAUSE 1000 /* microseconds before each: whatever else has to run, runs now */
#define CHUNK 4096
#define ZEROCOPY 16384
#define SENT 65536
#define ROOM (8 << 20) /* of the socket that receives: a batch fits */

enum { NOTHING, ACCEPT, DRAIN };

struct shared {
    int turn; /* 1: the peer's */
    int port;
    int command;
    long argument;
    long late; /* bytes */
};

static volatile struct shared *shared;
static char *buffer;
static int file, far;

/* For the emulator's plugin, where.c; to the processor, a NOP. */
#define MARK(which) asm volatile(".byte 0x0f, 0x1f, 0x84, 0, 'z', 'c', 't', " #which ::: "memory")
#define MARK_NEXT MARK(0)
#define MARK_BEGIN MARK(1)
#define MARK_END MARK(2)

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void await(int value)
{
    while (shared->turn != value)
        syscall(SYS_futex, &shared->turn, FUTEX_WAIT, !value, NULL, NULL, 0);
}

static void hand_over(int value)
{
    shared->turn = value;
    syscall(SYS_futex, &shared->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Have the peer do something: two context switches. */
static void call(int command, long argument)
{
    shared->command = command;
    shared->argument = argument;
    hand_over(1);
    await(0);
}

static void prepare(const char *path)
{
    struct sched_param priority = { .sched_priority = 1 };
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    must(fd, path);
    must(ftruncate(fd, sizeof *shared), "ftruncate");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    must(sched_setscheduler(0, SCHED_FIFO, &priority), "sched_setscheduler");
    buffer = mmap(NULL, SENT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(buffer, 'x', SENT);
}

static struct sockaddr_in loopback(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = port };

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void peer(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0), near = -1, room = ROOM;

    must(setsockopt(listener, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), "SO_RCVBUFFORCE");
    must(bind(listener, (struct sockaddr *)&address, length), "bind");
    must(listen(listener, 1), "listen");
    must(getsockname(listener, (struct sockaddr *)&address, &length), "getsockname");
    shared->port = address.sin_port;
    for (;;) {
        await(1);
        if (shared->command == ACCEPT) {
            close(near);
            near = accept(listener, NULL, NULL);
            must(near, "accept");
        }
        if (shared->command == DRAIN) {
            int there;

            /* All of it has arrived, so that the batch had all of the work in it. */
            must(ioctl(near, FIONREAD, &there), "FIONREAD");
            shared->late = shared->argument - there;
            for (long left = shared->argument, got; left > 0; left -= got) {
                got = recv(near, buffer, left < SENT ? left : SENT, 0);
                must(got ? got : -1, "recv");
            }
        }
        hand_over(0);
    }
}

static void do_getpid(void) { syscall(SYS_getpid); }
static void do_read(void) { must(read(file, buffer, CHUNK) == CHUNK ? 0 : -1, "read"); }
static void do_write(void) { must(write(far, buffer, CHUNK) == CHUNK ? 0 : -1, "write"); }
static void do_switch(void) { call(NOTHING, 0); }

static void do_sendfile(void)
{
    off_t offset = 0;

    must(sendfile(far, file, &offset, SENT) == SENT ? 0 : -1, "sendfile");
}

static void do_zerocopy(void)
{
    must(send(far, buffer, ZEROCOPY, MSG_ZEROCOPY) == ZEROCOPY ? 0 : -1, "send");
}

/* For how the emulator counts a repeated instruction: by the byte. */
static void do_repeat(void)
{
    void *from = buffer, *to = buffer + SENT / 2;
    unsigned long left = CHUNK;

    asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(left) : : "memory");
}

static void nothing(void) { }
static void rewind_file(void) { lseek(file, 0, SEEK_SET); }

/* The kernel's notifications that the buffers may be used again. */
static void empty_errors(void)
{
    char control[256];
    struct msghdr message = { .msg_control = control, .msg_controllen = sizeof control };

    while (recvmsg(far, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0)
        message.msg_controllen = sizeof control;
}

static const struct operation {
    const char *name;
    int repetitions; /* in a batch */
    long sent;       /* bytes, by each */
    void (*perform)(void);
    void (*before)(void); /* each batch */
    int times;            /* what it is named for, in each */
} operations[] = {
    { "nothing", 16, 0, nothing, nothing, 1 },
    { "repeat", 16, 0, do_repeat, nothing, 1 },
    { "getpid", 16, 0, do_getpid, nothing, 1 },
    { "read", 16, 0, do_read, rewind_file, 1 },
    { "write", 8, CHUNK, do_write, nothing, 1 },
    { "sendfile", 4, SENT, do_sendfile, nothing, 1 },
    { "zerocopy", 4, ZEROCOPY, do_zerocopy, empty_errors, 1 },
    { "switch", 16, 0, do_switch, nothing, 2 },
};

static void measure(const struct operation *one, FILE *result)
{
    int good = -WARM;

    fprintf(result, "%s %d", one->name, one->repetitions * one->times);
    MARK_NEXT;
    for (int batch = 0; good < BATCHES; batch++) {
        one->before();
        usleep(PAUSE);
        MARK_BEGIN;
        unsigned long long began = __rdtsc();
        for (int i = 0; i < one->repetitions; i++)
            one->perform();
        unsigned long long taken = __rdtsc() - began;
        MARK_END;
        if (one->sent)
            call(DRAIN, one->sent * one->repetitions);
        if (batch == MOST) {
            fprintf(stderr, "%s: most batches had not arrived at their end\n", one->name);
            exit(1);
        }
        /* Where a softirq was left to ksoftirqd, work is missing in the batch. */
        if (!shared->late && ++good > 0)
            fprintf(result, " %llu", taken);
    }
    fprintf(result, "\n");
}

static void run(const char *path, const char *result, const char *release)
{
    struct sockaddr_in address = loopback(shared->port);
    int yes = 1;
    char partial[4096];

    file = open(path, O_RDONLY);
    must(file, path);
    far = socket(AF_INET, SOCK_STREAM, 0);
    must(setsockopt(far, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes), "TCP_NODELAY");
    must(setsockopt(far, SOL_SOCKET, SO_ZEROCOPY, &yes, sizeof yes), "SO_ZEROCOPY");
    must(connect(far, (struct sockaddr *)&address, sizeof address), "connect");
    call(ACCEPT, 0);
    snprintf(partial, sizeof partial, "%s.partial", result);
    FILE *out = fopen(partial, "w");
    must(out ? 0 : -1, partial);
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++)
        measure(&operations[i], out);
    MARK_NEXT;
    fclose(out);
    must(rename(partial, result), result);
    if (release)
        must(open(release, O_RDONLY), release);
}

int main(int count, char **words)
{
    if (count == 3 && !strcmp(words[1], "peer")) {
        prepare(words[2]);
        peer();
    }
    if ((count == 5 || count == 6) && !strcmp(words[1], "run")) {
        prepare(words[2]);
        run(words[3], words[4], words[5]);
        return 0;
    }
    fprintf(stderr, "usage: workload peer SHARED | run SHARED FILE RESULT [RELEASE]\n");
    return 2;
}
