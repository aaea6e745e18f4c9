/* An SMTP sink: takes mail for anybody, throws it away, counts it.
 *
 * For benches, where the receiver must cost next to nothing: one thread, epoll, PIPELINING within and
 * across messages (RFC 2920), optional CHUNKING (RFC 3030), one send per batch of replies. With
 * --rtt-ms N it is a delay line too: every batch of replies leaves N ms after the octets that it answers
 * came in, and the banner 2 N after the connection (one for TCP's own handshake), so a client sees the
 * timing of a link with that round trip; batches stay in order and the line holds any number of them.
 * Bandwidth and TCP's slow start are not imitated. Commands out of sequence get 503 and are counted.
 * SIGUSR1 prints the counts as one line of JSON; so do SIGTERM, SIGINT and the end of stdin (--stdin),
 * which end it. Touches nothing but its sockets.
 *
 *   sink [--host 127.0.0.1] [--port 0] [--rtt-ms 0] [--chunking] [--stdin]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { READ_OCTETS = 262144, LINE_MAX_OCTETS = 2048, EVENTS_MAX = 256, OUT_START = 512 };
enum mode { COMMAND, CONTENT, CHUNK };

struct connection {
    int fd;
    enum mode mode;
    int hello, mail, rcpt, chunking;         /* what this transaction has seen */
    int dot;                                 /* octets of CRLF . CRLF matched so far */
    int closing;                             /* close when everything is sent */
    int dead;                                /* closed; freed when nothing refers to it any more */
    struct connection *next_dead;
    unsigned long long chunk_left;
    int chunk_last;
    size_t line_length;
    char line[LINE_MAX_OCTETS];              /* an incomplete command */
    char *out;                               /* replies due, not yet taken by the kernel */
    size_t out_length, out_size;
    int waiting_writable;
    long batches;                            /* batches in the delay line */
};

/* One batch of replies in the delay line. The delay is constant, so each line is in order of time. */
struct batch {
    struct batch *next;
    struct connection *to;
    long long due_ns;
    int last;                                /* close the connection after it */
    size_t length;
    char octets[];
};
struct delay_line { struct batch *first, *last; };

static struct { unsigned long long messages, connections, octets, protocol_errors; long open; } counts;
static struct delay_line replies_line, banner_line;
static long long rtt_ns;
static int poller, timer, chunking_offered;
static struct connection *dead_list;         /* closed ones; events of this turn may still name them */

static char batch_out[READ_OCTETS * 4];      /* replies to one read; a 6-octet command gets 20 back */
static size_t batch_length;

static long long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void die(const char *what) {
    fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void print_counts(void) {
    printf("{\"messages\":%llu,\"connections\":%llu,\"connections_open\":%ld,\"octets\":%llu,"
           "\"protocol_errors\":%llu}\n",
           counts.messages, counts.connections, counts.open, counts.octets, counts.protocol_errors);
    fflush(stdout);
}

/* --- sending --- */

/* Free what is closed and has no batch in the delay line; called between turns of the event loop. */
static void bury(void) {
    struct connection **at = &dead_list, *c;
    while ((c = *at)) {
        if (c->batches) { at = &c->next_dead; continue; }
        *at = c->next_dead;
        free(c->out);
        free(c);
    }
}

static void close_connection(struct connection *c) {
    if (c->dead) return;
    close(c->fd);
    c->dead = 1;
    c->next_dead = dead_list;
    dead_list = c;
    counts.open--;
}

static void watch(struct connection *c, int writable) {
    struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
    c->waiting_writable = writable;
}

static void flush(struct connection *c) {
    size_t sent = 0;
    while (sent < c->out_length) {
        ssize_t n = send(c->fd, c->out + sent, c->out_length - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) break;
        if (n < 0) { close_connection(c); return; }
        sent += n;
    }
    memmove(c->out, c->out + sent, c->out_length - sent);
    c->out_length -= sent;
    if ((c->out_length > 0) != c->waiting_writable) watch(c, c->out_length > 0);
    if (c->closing && c->out_length == 0) close_connection(c);
}

static void send_octets(struct connection *c, const char *octets, size_t length) {
    if (c->dead) return;
    if (c->out_length + length > c->out_size) {
        c->out_size = (c->out_length + length) * 2 + OUT_START;
        c->out = realloc(c->out, c->out_size);
        if (!c->out) die("memory");
    }
    memcpy(c->out + c->out_length, octets, length);
    c->out_length += length;
    flush(c);
}

static void set_timer(void) {
    long long due = 0;
    if (replies_line.first) due = replies_line.first->due_ns;
    if (banner_line.first && (!due || banner_line.first->due_ns < due)) due = banner_line.first->due_ns;
    struct itimerspec when = {.it_value = {due / 1000000000LL, due % 1000000000LL}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Hand over the batch that `batch_out` holds: at once, or after `delay_ns`. */
static void send_batch(struct connection *c, struct delay_line *line, long long delay_ns, int last) {
    size_t length = batch_length;
    batch_length = 0;
    if (!delay_ns) {
        c->closing |= last;
        send_octets(c, batch_out, length);
        if (last && !c->dead && c->out_length == 0) close_connection(c);
        return;
    }
    struct batch *b = malloc(sizeof *b + length);
    if (!b) die("memory");
    *b = (struct batch){.to = c, .due_ns = now_ns() + delay_ns, .last = last, .length = length};
    memcpy(b->octets, batch_out, length);
    int was_empty = !line->first;
    if (was_empty) line->first = b; else line->last->next = b;
    line->last = b;
    c->batches++;
    if (was_empty) set_timer();
}

static void release(struct delay_line *line, long long now) {
    struct batch *b;
    while ((b = line->first) && b->due_ns <= now) {
        struct connection *c = b->to;
        line->first = b->next;
        c->closing |= b->last;
        send_octets(c, b->octets, b->length);
        if (b->last && !c->dead && c->out_length == 0) close_connection(c);
        c->batches--;
        free(b);
    }
}

/* --- the conversation --- */

static void say(const char *reply) {
    size_t length = strlen(reply);
    if (batch_length + length > sizeof batch_out) return;  /* cannot happen: see its size */
    memcpy(batch_out + batch_length, reply, length);
    batch_length += length;
}

static void fault(const char *reply) {
    counts.protocol_errors++;
    say(reply);
}

static void reset(struct connection *c) { c->mail = c->rcpt = c->chunking = 0; }

static void take_message(struct connection *c) {
    counts.messages++;
    reset(c);
    c->mode = COMMAND;
    say("250 2.0.0 Ok: queued\r\n");
}

static int is(const char *line, size_t length, const char *verb) {
    size_t n = strlen(verb);
    return length >= n && !strncasecmp(line, verb, n) && (length == n || line[n] == ' ');
}

static void bdat(struct connection *c, const char *line) {
    char *end;
    c->chunk_left = strtoull(line + 4, &end, 10);
    c->chunk_last = !strncasecmp(end, " LAST", 5);
    c->mode = CHUNK;
}

static void end_chunk(struct connection *c) {
    c->mode = COMMAND;
    if (!c->mail || !c->rcpt) fault("503 5.5.1 Bad sequence of commands\r\n");
    else if (c->chunk_last) take_message(c);
    else {
        c->chunking = 1;
        say("250 2.0.0 Ok\r\n");
    }
}

static void command(struct connection *c, const char *line, size_t length) {
    if (is(line, length, "MAIL")) {
        if (!c->hello || c->mail) { fault("503 5.5.1 Bad sequence of commands\r\n"); return; }
        c->mail = 1;
        say("250 2.1.0 Ok\r\n");
    } else if (is(line, length, "RCPT")) {
        if (!c->mail || c->chunking) { fault("503 5.5.1 Need MAIL command\r\n"); return; }
        c->rcpt = 1;
        say("250 2.1.5 Ok\r\n");
    } else if (is(line, length, "DATA")) {
        if (!c->rcpt || c->chunking) { fault("503 5.5.1 Bad sequence of commands\r\n"); return; }
        c->mode = CONTENT;
        c->dot = 2;  /* the CRLF of DATA is the one before a lone dot */
        say("354 End data with <CR><LF>.<CR><LF>\r\n");
    } else if (is(line, length, "BDAT") && chunking_offered) {
        bdat(c, line);
    } else if (is(line, length, "RSET")) {
        reset(c);
        say("250 2.0.0 Ok\r\n");
    } else if (is(line, length, "EHLO")) {
        c->hello = 1;
        reset(c);
        say("250-sink.test\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n");
        if (chunking_offered) say("250-CHUNKING\r\n");
        say("250 ENHANCEDSTATUSCODES\r\n");
    } else if (is(line, length, "HELO")) {
        c->hello = 1;
        reset(c);
        say("250 sink.test\r\n");
    } else if (is(line, length, "NOOP")) {
        say("250 2.0.0 Ok\r\n");
    } else if (is(line, length, "QUIT")) {
        say("221 2.0.0 Bye\r\n");
        c->closing = 1;
    } else {
        fault("500 5.5.2 Command not recognised\r\n");
    }
}

/* Octets of `data` up to and with the final dot; `c->dot` is 5 when it was found. */
static size_t scan_content(struct connection *c, const char *data, size_t length) {
    int dot = c->dot;
    size_t i = 0;
    while (i < length && dot < 5) {
        if (dot == 0) {
            const char *cr = memchr(data + i, '\r', length - i);
            if (!cr) { i = length; break; }
            i = cr - data + 1;
            dot = 1;
            continue;
        }
        char octet = data[i++];
        if (octet == "\r\n.\r\n"[dot]) dot++;
        else dot = octet == '\r';
    }
    c->dot = dot;
    return i;
}

/* A command line from `data`, completed with what came before; 0 = more is needed, all of it is kept. */
static size_t take_line(struct connection *c, const char *data, size_t length) {
    const char *lf = memchr(data, '\n', length);
    size_t take = lf ? (size_t)(lf - data) + 1 : length;
    if (c->line_length + take > sizeof c->line) {
        fault("500 5.5.2 Line too long\r\n");
        c->closing = 1;
        return length;
    }
    const char *line = data;
    size_t line_length = take;
    if (c->line_length || !lf) {
        memcpy(c->line + c->line_length, data, take);
        c->line_length += take;
        if (!lf) return length;
        line = c->line;
        line_length = c->line_length;
        c->line_length = 0;
    }
    if (line_length < 2 || line[line_length - 2] != '\r') fault("500 5.5.2 Bare newline\r\n");
    else command(c, line, line_length - 2);
    return take;
}

static void receive(struct connection *c) {
    static char data[READ_OCTETS];
    ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) { close_connection(c); return; }
    counts.octets += n;
    size_t at = 0, length = n;
    int was_closing = c->closing;
    while (at < length && !c->closing) {
        if (c->mode == COMMAND) {
            at += take_line(c, data + at, length - at);
            if (c->mode == CHUNK && c->chunk_left == 0) end_chunk(c);
        } else if (c->mode == CONTENT) {
            at += scan_content(c, data + at, length - at);
            if (c->dot == 5) take_message(c);
        } else {
            size_t take = length - at < c->chunk_left ? length - at : c->chunk_left;
            at += take;
            c->chunk_left -= take;
            if (c->chunk_left == 0) end_chunk(c);
        }
    }
    /* With a delay the connection closes with its last batch, not before. */
    int last = c->closing && !was_closing;
    if (rtt_ns && !was_closing) c->closing = 0;
    if (batch_length && !was_closing) send_batch(c, &replies_line, rtt_ns, last);
    batch_length = 0;
}

static void take_connections(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) die("memory");
        c->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
        counts.connections++;
        counts.open++;
        say("220 sink.test ESMTP\r\n");
        send_batch(c, &banner_line, 2 * rtt_ns, 0);
    }
}

/* --- the process --- */

static int listen_on(const char *host, int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t length = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) { errno = EINVAL; die(host); }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 4096) < 0) die(host);
    getsockname(fd, (struct sockaddr *)&address, &length);
    printf("{\"host\":\"%s\",\"port\":%d,\"pid\":%d}\n", host, ntohs(address.sin_port), getpid());
    fflush(stdout);
    return fd;
}

static void add(int fd, void *mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = mark};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

int main(int count, char **words) {
    const char *host = "127.0.0.1";
    int port = 0, stdin_ends = 0;
    for (int i = 1; i < count; i++) {
        int more = i + 1 < count;
        if (!strcmp(words[i], "--host") && more) host = words[++i];
        else if (!strcmp(words[i], "--port") && more) port = atoi(words[++i]);
        else if (!strcmp(words[i], "--rtt-ms") && more) rtt_ns = (long long)(atof(words[++i]) * 1e6);
        else if (!strcmp(words[i], "--chunking")) chunking_offered = 1;
        else if (!strcmp(words[i], "--stdin")) stdin_ends = 1;
        else { fprintf(stderr, "usage: sink [--host A] [--port N] [--rtt-ms N] [--chunking] [--stdin]\n"); return 2; }
    }
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    poller = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int caught = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
    static int listener;
    listener = listen_on(host, port);
    add(listener, &listener);
    add(timer, &timer);
    static int caught_mark, stdin_mark;
    add(caught, &caught_mark);
    if (stdin_ends) add(0, &stdin_mark);
    for (;;) {
        struct epoll_event events[EVENTS_MAX];
        int n = epoll_wait(poller, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            void *mark = events[i].data.ptr;
            if (mark == &listener) take_connections(listener);
            else if (mark == &timer) {
                unsigned long long ticks;
                if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) die("timer");
                long long now = now_ns();
                release(&banner_line, now);
                release(&replies_line, now);
                set_timer();
            } else if (mark == &caught_mark) {
                struct signalfd_siginfo info;
                while (read(caught, &info, sizeof info) == sizeof info) {
                    print_counts();
                    if (info.ssi_signo != SIGUSR1) return 0;
                }
            } else if (mark == &stdin_mark) {
                char ignored[64];
                if (read(0, ignored, sizeof ignored) <= 0) { print_counts(); return 0; }
            } else {
                struct connection *c = mark;
                if (!c->dead && events[i].events & EPOLLOUT) flush(c);
                if (!c->dead && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
            }
        }
        bury();
    }
}
