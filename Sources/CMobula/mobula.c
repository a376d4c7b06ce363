#define _GNU_SOURCE
#include "CMobula.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

int mobula_memfd_create(const char *name) {
  return memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int mobula_seal(int fd) { return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL); }

int mobula_reopen_read_only(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return open(path, O_RDONLY | O_CLOEXEC);
}

int mobula_reserve(int fd, int64_t offset, int64_t length) {
  int result;
  do { result = fallocate(fd, 0, offset, length) == 0 ? 0 : errno; } while (result == EINTR);
  return result;
}

int mobula_give_back(int fd, int64_t offset, int64_t length) {
  int result;
  do {
    result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) == 0 ? 0 : errno;
  } while (result == EINTR);
  return result;
}

int mobula_open_process(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

int mobula_peer_process(int socket) {
  int process = -1;
  socklen_t length = sizeof process;
  return getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &process, &length) == 0 ? process : -1;
}

int mobula_signal_process(int process, int signal) {
  return (int)syscall(SYS_pidfd_send_signal, process, signal, NULL, 0);
}

int mobula_bell(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

void mobula_take_bell(int bell) {
  uint64_t number;
  struct iovec part = {.iov_base = &number, .iov_len = sizeof number};
  // RWF_NOWAIT, since who shares the descriptor may have made it a blocking one.
  if (preadv2(bell, &part, 1, -1, RWF_NOWAIT) < 0 && errno == EOPNOTSUPP) (void)!read(bell, &number, sizeof number);
}

int mobula_watcher(void) { return epoll_create1(EPOLL_CLOEXEC); }

int mobula_watch(int watcher, int fd, uint64_t tag) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
  return epoll_ctl(watcher, EPOLL_CTL_ADD, fd, &event);
}

int mobula_unwatch(int watcher, int fd) {
  struct epoll_event event = {0};
  return epoll_ctl(watcher, EPOLL_CTL_DEL, fd, &event);
}

int mobula_watch_writes(const char *folder) {
  int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch < 0) return -1;
  if (inotify_add_watch(watch, folder, IN_MODIFY | IN_ONLYDIR) < 0) {
    int reason = errno;
    close(watch);
    errno = reason;
    return -1;
  }
  return watch;
}

ssize_t mobula_written_files(int watch, char *names, size_t length, int milliseconds) {
  struct pollfd ready = {.fd = watch, .events = POLLIN};
  int count = poll(&ready, 1, milliseconds);
  if (count < 0) return errno == EINTR ? 0 : -1;
  if (count == 0) return 0;
  char events[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
  ssize_t size = read(watch, events, sizeof events);
  if (size < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
  size_t used = 0;
  for (char *at = events; at < events + size;) {
    struct inotify_event *event = (struct inotify_event *)at;
    // What did not fit into the kernel's queue is of some file: nobody says which.
    const char *name = event->mask & IN_Q_OVERFLOW ? "*" : event->len ? event->name : NULL;
    if (name) {
      size_t bytes = strlen(name) + 1;
      if (used + bytes <= length) {
        memcpy(names + used, name, bytes);
        used += bytes;
      }
    }
    at += sizeof *event + event->len;
  }
  return (ssize_t)used;
}

void mobula_write_out_lines(void) { setvbuf(stdout, NULL, _IOLBF, 0); }

int mobula_flush_output(void) {
  errno = 0;
  int failed = fflush(stdout) != 0 || ferror(stdout);
  return failed ? (errno ? errno : EIO) : 0;
}

int mobula_wait(int watcher, uint64_t *tags, int count, int milliseconds) {
  struct epoll_event events[64];
  int ready = epoll_wait(watcher, events, count < 64 ? count : 64, milliseconds);
  for (int i = 0; i < ready; i++) tags[i] = events[i].data.u64;
  return ready;
}

int mobula_peer(int socket, int *pid, unsigned *uid) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0) return -1;
  *pid = peer.pid;
  *uid = peer.uid;
  return 0;
}

ssize_t mobula_send_packet(int socket, const int *fds, size_t count, const void *bytes, size_t length) {
  if (count > MOBULA_LARGEST_ATTACHMENT) {
    errno = EINVAL;
    return -1;
  }
  struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};
  union { char buffer[CMSG_SPACE(MOBULA_LARGEST_ATTACHMENT * sizeof(int))]; struct cmsghdr align; } control;
  memset(&control, 0, sizeof control);
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.buffer;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t mobula_receive_packet(int socket, int *fds, size_t *count, int *incomplete, void *bytes, size_t length,
                              int waits) {
  *count = 0;
  *incomplete = 0;
  struct iovec iov = {.iov_base = bytes, .iov_len = length};
  union { char buffer[CMSG_SPACE(MOBULA_LARGEST_ATTACHMENT * sizeof(int))]; struct cmsghdr align; } control;
  struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1,
                           .msg_control = control.buffer, .msg_controllen = sizeof control.buffer};
  ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_TRUNC | (waits ? 0 : MSG_DONTWAIT));
  if (received < 0) return received;
  *incomplete = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    // The kernel puts all of them into one control message, which can't be larger than the buffer.
    *count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), *count * sizeof(int));
  }
  return received;
}

ssize_t mobula_sendfile(int socket, int fd, int64_t offset, size_t count) {
  off_t from = offset;
  return sendfile(socket, fd, &from, count);
}

int mobula_accept(int socket) { return accept4(socket, NULL, NULL, SOCK_CLOEXEC); }

int mobula_spawn_close_from(void *actions, int first) {
  return posix_spawn_file_actions_addclosefrom_np(actions, first);
}

void mobula_adopt_orphans(void) { prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); }

void mobula_name_thread(const char *name) { prctl(PR_SET_NAME, name); }
