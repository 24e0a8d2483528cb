// Makes a system call of each kind whose arguments have names, alone in its process.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
	char buffer[256];
	int one = 1, pipes[2], pair[2];
	syscall(SYS_openat, AT_FDCWD, "nowhere", O_RDONLY | O_CLOEXEC | O_DIRECTORY | O_NOFOLLOW);
	int fd = syscall(SYS_openat, AT_FDCWD, "file", O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0640);
	int tmp = syscall(SYS_openat, AT_FDCWD, ".", O_WRONLY | O_TMPFILE, 0600);
	syscall(SYS_openat, fd, "file", O_PATH);
	syscall(SYS_fchmodat, AT_FDCWD, "file", 04755);
	syscall(SYS_mkdirat, AT_FDCWD, "folder", 0);
	syscall(SYS_mknodat, AT_FDCWD, "queue", S_IFIFO | 0600, 0);
	syscall(SYS_faccessat, AT_FDCWD, "file", R_OK | X_OK);
	syscall(SYS_faccessat, AT_FDCWD, "nowhere", F_OK);
	syscall(SYS_lseek, fd, 0, SEEK_END);
	syscall(SYS_lseek, 99, 0, SEEK_DATA);
	syscall(SYS_fallocate, fd, FALLOC_FL_KEEP_SIZE, 0, 4096);
	syscall(SYS_fadvise64, fd, 0, 0, POSIX_FADV_DONTNEED);
	syscall(SYS_flock, fd, LOCK_EX | LOCK_NB);
	syscall(SYS_flock, fd, LOCK_UN);
	syscall(SYS_fcntl, fd, F_GETFL);
	syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 50);
	syscall(SYS_dup3, fd, 60, O_CLOEXEC);
	syscall(SYS_ioctl, fd, TCGETS, buffer);
	syscall(SYS_ioctl, fd, FIONREAD, buffer);
	syscall(SYS_ioctl, fd, FIOCLEX);
	syscall(SYS_pipe2, pipes, O_NONBLOCK | O_CLOEXEC);
	syscall(SYS_pipe2, pipes, 0);
	syscall(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_SEMAPHORE);
	int epoll = syscall(SYS_epoll_create1, EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};
	syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pipes[0], &event);
	syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, pipes[0], &event);
	syscall(SYS_timerfd_create, CLOCK_BOOTTIME, TFD_NONBLOCK);
	int watch = syscall(SYS_inotify_init1, IN_CLOEXEC | IN_NONBLOCK);
	syscall(SYS_inotify_add_watch, watch, ".", IN_MODIFY | IN_CREATE | IN_ONLYDIR);
	syscall(SYS_memfd_create, "name", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	syscall(SYS_getrandom, buffer, 8, GRND_NONBLOCK);
	char *memory = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	syscall(SYS_mprotect, memory, 4096, PROT_NONE);
	syscall(SYS_madvise, memory, 4096, MADV_DONTNEED);
	syscall(SYS_msync, memory, 8192, MS_SYNC | MS_INVALIDATE);
	syscall(SYS_mremap, memory, 8192, 16384, MREMAP_MAYMOVE);
	mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	int sock = syscall(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	syscall(SYS_socket, AF_INET6, SOCK_DGRAM, 0);
	syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair);
	syscall(SYS_setsockopt, sock, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	syscall(SYS_setsockopt, sock, SOL_TCP, TCP_NODELAY, &one, sizeof(one));
	syscall(SYS_sendto, pair[0], buffer, 1, MSG_NOSIGNAL | MSG_DONTWAIT, 0, 0);
	syscall(SYS_recvfrom, pair[1], buffer, 1, MSG_PEEK, 0, 0);
	syscall(SYS_sendto, 99, buffer, 1, 0, 0, 0);
	syscall(SYS_shutdown, pair[0], SHUT_WR);
	syscall(SYS_rt_sigaction, SIGUSR1, 0, 0, 8);
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, 0, 8);
	syscall(SYS_kill, getpid(), 0);
	syscall(SYS_kill, 1 << 30, SIGTERM);
	syscall(SYS_tgkill, getpid(), getpid(), SIGWINCH);
	syscall(SYS_kill, getpid(), SIGCHLD);
	syscall(SYS_kill, 1 << 30, 35);
	struct timespec nothing = {0, 1};
	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &nothing, 0);
	uint32_t word = 1;
	syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
	syscall(SYS_futex, &word, FUTEX_WAKE, 1, 0, 0, 0);
	syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, 0, 0, -1);
	syscall(SYS_prctl, PR_SET_NAME, "words", 0, 0, 0);
	syscall(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
	syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, buffer);
	syscall(SYS_getpriority, PRIO_PROCESS, 0);
	syscall(SYS_unlinkat, AT_FDCWD, "folder", AT_REMOVEDIR);
	syscall(SYS_renameat2, AT_FDCWD, "file", AT_FDCWD, "other", RENAME_NOREPLACE);
	syscall(SYS_newfstatat, AT_FDCWD, "other", buffer, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
	syscall(SYS_unshare, 0);
	long child = syscall(SYS_clone, CLONE_FILES | CLONE_FS | SIGCHLD, 0, 0, 0, 0);
	if (child == 0)
		syscall(SYS_exit, 0);
	syscall(SYS_wait4, child, 0, __WALL, 0);
	syscall(SYS_wait4, -1, 0, WNOHANG, 0);
	return tmp < 0;
}
