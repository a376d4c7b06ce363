#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "CAllocationCount.h"

static int install(struct sock_filter *filter, unsigned short length, unsigned flags) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1) return -1;
  struct sock_fprog program = {.len = length, .filter = filter};
  return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

int mobula_forbid_system_calls(void) {
  // The filter is installed by one of this very ABI, so the numbers are its own. Arguments are compared
  // by their lower halves, which come first on a little-endian machine.
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, STDOUT_FILENO, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  return install(filter, sizeof filter / sizeof *filter, 0);
}

struct mobula_call_counter {
  _Atomic int listener;
  _Atomic uint64_t all;
  _Atomic uint64_t counts[MOBULA_LARGEST_CALL];
};

// Hears of each call before it is made, counts it, and lets it go on. It is no ptrace: no signals, no
// stops, and what the call does is the caller's business.
static void *answer(void *argument) {
  struct mobula_call_counter *counter = argument;
  int listener;
  while ((listener = atomic_load(&counter->listener)) == -1) usleep(100);
  if (listener == -2) {
    free(counter);
    return NULL;
  }
  struct seccomp_notif call;
  struct seccomp_notif_resp reply;
  while (1) {
    memset(&call, 0, sizeof call);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) == -1) {
      if (errno == EINTR) continue;
      // ENOENT: the caller was killed meanwhile. Others wait still, unless nobody is left.
      if (errno == ENOENT) continue;
      return NULL;
    }
    if (call.data.nr >= 0 && call.data.nr < MOBULA_LARGEST_CALL) atomic_fetch_add(&counter->counts[call.data.nr], 1);
    atomic_fetch_add(&counter->all, 1);
    memset(&reply, 0, sizeof reply);
    reply.id = call.id;
    reply.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
  }
}

struct mobula_call_counter *mobula_count_system_calls(void) {
  struct mobula_call_counter *counter = calloc(1, sizeof *counter);
  if (counter == NULL) return NULL;
  atomic_store(&counter->listener, -1);
  pthread_t thread;
  // Before the filter, which the threads of a filtered one have, too.
  int failure = pthread_create(&thread, NULL, answer, counter);
  if (failure != 0) {
    free(counter);
    errno = failure;
    return NULL;
  }
  pthread_detach(thread);
  struct sock_filter filter[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)};
  int listener = install(filter, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER);
  if (listener == -1) {
    int number = errno;
    atomic_store(&counter->listener, -2);
    errno = number;
    return NULL;
  }
  atomic_store(&counter->listener, listener);
  return counter;
}

uint64_t mobula_system_calls(const struct mobula_call_counter *counter, int number) {
  if (number < 0) return atomic_load(&counter->all);
  return number < MOBULA_LARGEST_CALL ? atomic_load(&counter->counts[number]) : 0;
}


const char *mobula_name_of_system_call(int number) {
  switch (number) {
#ifdef SYS_read
    case SYS_read: return "read";
#endif
#ifdef SYS_write
    case SYS_write: return "write";
#endif
#ifdef SYS_close
    case SYS_close: return "close";
#endif
#ifdef SYS_fstat
    case SYS_fstat: return "fstat";
#endif
#ifdef SYS_poll
    case SYS_poll: return "poll";
#endif
#ifdef SYS_mmap
    case SYS_mmap: return "mmap";
#endif
#ifdef SYS_mprotect
    case SYS_mprotect: return "mprotect";
#endif
#ifdef SYS_munmap
    case SYS_munmap: return "munmap";
#endif
#ifdef SYS_brk
    case SYS_brk: return "brk";
#endif
#ifdef SYS_rt_sigaction
    case SYS_rt_sigaction: return "rt_sigaction";
#endif
#ifdef SYS_rt_sigprocmask
    case SYS_rt_sigprocmask: return "rt_sigprocmask";
#endif
#ifdef SYS_ioctl
    case SYS_ioctl: return "ioctl";
#endif
#ifdef SYS_madvise
    case SYS_madvise: return "madvise";
#endif
#ifdef SYS_socket
    case SYS_socket: return "socket";
#endif
#ifdef SYS_connect
    case SYS_connect: return "connect";
#endif
#ifdef SYS_sendto
    case SYS_sendto: return "sendto";
#endif
#ifdef SYS_recvfrom
    case SYS_recvfrom: return "recvfrom";
#endif
#ifdef SYS_sendmsg
    case SYS_sendmsg: return "sendmsg";
#endif
#ifdef SYS_recvmsg
    case SYS_recvmsg: return "recvmsg";
#endif
#ifdef SYS_getsockopt
    case SYS_getsockopt: return "getsockopt";
#endif
#ifdef SYS_setsockopt
    case SYS_setsockopt: return "setsockopt";
#endif
#ifdef SYS_clone
    case SYS_clone: return "clone";
#endif
#ifdef SYS_clone3
    case SYS_clone3: return "clone3";
#endif
#ifdef SYS_exit
    case SYS_exit: return "exit";
#endif
#ifdef SYS_futex
    case SYS_futex: return "futex";
#endif
#ifdef SYS_set_robust_list
    case SYS_set_robust_list: return "set_robust_list";
#endif
#ifdef SYS_rseq
    case SYS_rseq: return "rseq";
#endif
#ifdef SYS_prctl
    case SYS_prctl: return "prctl";
#endif
#ifdef SYS_fallocate
    case SYS_fallocate: return "fallocate";
#endif
#ifdef SYS_fcntl
    case SYS_fcntl: return "fcntl";
#endif
#ifdef SYS_getpid
    case SYS_getpid: return "getpid";
#endif
#ifdef SYS_pidfd_open
    case SYS_pidfd_open: return "pidfd_open";
#endif
#ifdef SYS_openat
    case SYS_openat: return "openat";
#endif
#ifdef SYS_ftruncate
    case SYS_ftruncate: return "ftruncate";
#endif
#ifdef SYS_memfd_create
    case SYS_memfd_create: return "memfd_create";
#endif
#ifdef SYS_eventfd2
    case SYS_eventfd2: return "eventfd2";
#endif
#ifdef SYS_epoll_wait
    case SYS_epoll_wait: return "epoll_wait";
#endif
#ifdef SYS_epoll_pwait
    case SYS_epoll_pwait: return "epoll_pwait";
#endif
#ifdef SYS_epoll_ctl
    case SYS_epoll_ctl: return "epoll_ctl";
#endif
#ifdef SYS_clock_nanosleep
    case SYS_clock_nanosleep: return "clock_nanosleep";
#endif
#ifdef SYS_sched_yield
    case SYS_sched_yield: return "sched_yield";
#endif
#ifdef SYS_sched_getaffinity
    case SYS_sched_getaffinity: return "sched_getaffinity";
#endif
#ifdef SYS_getrandom
    case SYS_getrandom: return "getrandom";
#endif
#ifdef SYS_accept4
    case SYS_accept4: return "accept4";
#endif
#ifdef SYS_lseek
    case SYS_lseek: return "lseek";
#endif
#ifdef SYS_getrusage
    case SYS_getrusage: return "getrusage";
#endif
#ifdef SYS_gettid
    case SYS_gettid: return "gettid";
#endif
#ifdef SYS_newfstatat
    case SYS_newfstatat: return "newfstatat";
#endif
#ifdef SYS_uname
    case SYS_uname: return "uname";
#endif
    default: return NULL;
  }
}
