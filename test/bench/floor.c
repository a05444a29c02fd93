//go:build ignore

/*
 * The floor of `run` with the default configuration on cgroup v1: the system calls that no runtime can do without, made by a static
 * program that knows everything in advance. No configuration is read, nothing is checked, paths are taken as they are.
 *
 *   floor ROOTFS STATE ID CGROUP…
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLAVE = 1 << 19, REC = 1 << 14, DETACH = 2, AT_RECURSE = 0x8000 };
enum { RO = MOUNT_ATTR_RDONLY, SUID = MOUNT_ATTR_NOSUID, DEV = MOUNT_ATTR_NODEV, EXEC = MOUNT_ATTR_NOEXEC };

static void fail(const char *what) {
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int must(long r, const char *what) {
	if (r < 0)
		fail(what);
	return r;
}

static void path(char *buf, const char *dir, const char *name) {
	if (snprintf(buf, 4096, "%s/%s", dir, name) >= 4096)
		errno = ENAMETOOLONG, fail(dir);
}

static void put(int dir, const char *name, const char *text) {
	int fd = must(openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), name);
	must(write(fd, text, strlen(text)), name);
	close(fd);
}

static void copy(int from, const char *a, int to) {
	char buf[256];
	int fd = must(openat(from, a, O_RDONLY | O_CLOEXEC), a);
	int n = must(read(fd, buf, sizeof buf), a);
	close(fd);
	fd = must(openat(to, a, O_WRONLY | O_CLOEXEC), a);
	must(write(fd, buf, n), a);
	close(fd);
}

static void attach(int mnt, int dir, const char *at) {
	must(syscall(SYS_move_mount, mnt, "", dir, at, MOVE_MOUNT_F_EMPTY_PATH), at);
	close(mnt);
}

/* options: "key=value" or "flag", ended by a null pointer */
static int filesystem(const char *type, const char *const *options, unsigned attr) {
	int fs = must(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), type);
	for (; *options; options++) {
		char key[64], *value;
		strcpy(key, *options);
		if ((value = strchr(key, '=')))
			*value++ = 0;
		must(syscall(SYS_fsconfig, fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, key, value, 0), *options);
	}
	must(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0), type);
	int mnt = must(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr), type);
	close(fs);
	return mnt;
}

#define FS(type, attr, ...) filesystem(type, (const char *const[]){__VA_ARGS__, 0}, attr)

static void setattr(int fd, unsigned flags, uint64_t set, uint64_t propagation) {
	struct mount_attr a = {.attr_set = set, .propagation = propagation};
	must(syscall(SYS_mount_setattr, fd, "", flags | AT_EMPTY_PATH, &a, sizeof a), "mount_setattr");
}

static int tree(int dir, const char *at, unsigned flags) {
	return syscall(SYS_open_tree, dir, at, flags | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static void bind_over(int root, const char *from, const char *at, unsigned attr) {
	int mnt = tree(from[0] ? AT_FDCWD : root, from[0] ? from : at, 0);
	if (mnt < 0)
		return; /* this kernel has no such file to hide */
	setattr(mnt, 0, attr, 0);
	attach(mnt, root, at);
}

static void mounts(int root, const char *id, char **cgroup) {
	attach(FS("proc", 0, "source=proc"), root, "proc");
	attach(FS("tmpfs", SUID | MOUNT_ATTR_STRICTATIME, "source=tmpfs", "mode=755", "size=65536k"), root, "dev");
	int dev = must(openat(root, "dev", O_PATH | O_CLOEXEC), "dev");
	must(mkdirat(dev, "pts", 0755), "pts");
	attach(FS("devpts", SUID | EXEC, "source=devpts", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"), dev, "pts");
	must(mkdirat(dev, "shm", 0755), "shm");
	attach(FS("tmpfs", SUID | DEV | EXEC, "source=shm", "mode=1777", "size=65536k"), dev, "shm");
	must(mkdirat(dev, "mqueue", 0755), "mqueue");
	attach(FS("mqueue", SUID | DEV | EXEC, "source=mqueue"), dev, "mqueue");
	attach(FS("sysfs", RO | SUID | DEV | EXEC, "source=sysfs", "ro"), root, "sys");
	attach(FS("tmpfs", SUID | DEV | EXEC, "source=tmpfs", "mode=755"), root, "sys/fs/cgroup");
	int top = must(openat(root, "sys/fs/cgroup", O_PATH | O_CLOEXEC), "sys/fs/cgroup");
	for (; *cgroup; cgroup++) {
		char from[4096], name[64];
		path(from, *cgroup, id);
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*cgroup + 15, "/"), *cgroup + 15); /* after /sys/fs/cgroup/ */
		must(mkdirat(top, name, 0755), name);
		bind_over(top, from, name, RO | SUID | DEV | EXEC);
	}
	setattr(top, 0, RO, 0);
	close(top);

	static const struct { const char *name; int major, minor; } nodes[] = {
	    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
	for (int i = 0; i < 6; i++)
		must(mknodat(dev, nodes[i].name, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
	must(symlinkat("/proc/self/fd", dev, "fd"), "fd");
	must(symlinkat("/proc/self/fd/0", dev, "stdin"), "stdin");
	must(symlinkat("/proc/self/fd/1", dev, "stdout"), "stdout");
	must(symlinkat("/proc/self/fd/2", dev, "stderr"), "stderr");
	must(symlinkat("pts/ptmx", dev, "ptmx"), "ptmx");
	close(dev);
}

static void hide(int root) {
	static const char *const readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
	static const char *const masked[] = {"proc/acpi", "proc/asound", "proc/kcore", "proc/keys", "proc/latency_stats",
	    "proc/timer_list", "proc/timer_stats", "proc/sched_debug", "sys/firmware", "proc/scsi"};
	for (int i = 0; i < 5; i++)
		bind_over(root, "", readonly[i], RO);
	int empty = FS("tmpfs", RO | SUID | DEV | EXEC, "nr_inodes=1", "mode=755");
	for (int i = 0; i < 10; i++) {
		struct stat st;
		if (fstatat(root, masked[i], &st, 0) != 0)
			continue;
		if (S_ISDIR(st.st_mode)) {
			int mnt = tree(empty, "", AT_EMPTY_PATH);
			attach(must(mnt, masked[i]), root, masked[i]);
		} else {
			bind_over(root, "/dev/null", masked[i], RO | SUID | EXEC);
		}
	}
	close(empty);
}

static void loopback(void) {
	struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int s = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	must(ioctl(s, SIOCSIFFLAGS, &r), "lo up");
	close(s);
}

static void drop(void) {
	const uint32_t keep = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
	for (int c = 0; c <= 40; c++)
		if (c > 31 || !(keep >> c & 1))
			must(prctl(PR_CAPBSET_DROP, c, 0, 0, 0), "bounding set");
	must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "keepcaps");
	must(syscall(SYS_setgroups, 0, 0), "setgroups");
	must(syscall(SYS_setresgid, 0, 0, 0), "setresgid");
	must(syscall(SYS_setresuid, 0, 0, 0), "setresuid");
	must(prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0), "keepcaps");
	must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set");
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{keep, keep, 0}};
	must(syscall(SYS_capset, &head, data), "capset");
}

static void child(const char *rootfs, const char *id, char **cgroup, int *tasks, int n) {
	umask(0);
	for (int i = 0; i < n; i++)
		must(write(tasks[i], "0", 1), "tasks");
	must(syscall(SYS_mount, "", "/", 0, REC | SLAVE, 0), "make / slave");
	int root = must(tree(AT_FDCWD, rootfs, AT_RECURSE), rootfs);
	setattr(root, AT_RECURSE, 0, SLAVE);
	must(syscall(SYS_move_mount, root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), rootfs);
	mounts(root, id, cgroup);
	loopback();
	must(sethostname("floor", 5), "sethostname");
	hide(root);
	setattr(root, 0, RO, 0);
	int old = must(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "/");
	must(fchdir(root), "fchdir");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(fchdir(old), "fchdir");
	must(syscall(SYS_mount, "", ".", 0, REC | SLAVE, 0), "make the old root slave");
	must(syscall(SYS_umount2, ".", DETACH), "umount2");
	must(chdir("/"), "chdir");
	must(setsid(), "setsid");
	must(syscall(SYS_keyctl, 1, id, 0, 0, 0), "keyctl");
	struct rlimit files = {1024, 1024};
	must(setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
	drop();
	umask(022);
	syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
	char *args[] = {"/bin/true", 0}, *env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", 0};
	execve(args[0], args, env);
	fail(args[0]);
}

static void devices(const char *dir) {
	static const char *const rules[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",
	    "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
	char file[4096];
	path(file, dir, "devices.deny");
	put(AT_FDCWD, file, "a");
	path(file, dir, "devices.allow");
	int fd = must(open(file, O_WRONLY | O_CLOEXEC), file);
	for (int i = 0; i < 10; i++)
		must(write(fd, rules[i], strlen(rules[i])), rules[i]);
	close(fd);
}

static int join(const char *parent, const char *id) {
	char dir[4096], file[4096];
	path(dir, parent, id);
	must(mkdir(dir, 0755), dir);
	if (strstr(parent, "/cpuset")) {
		int from = must(open(parent, O_PATH | O_CLOEXEC), parent), to = must(open(dir, O_PATH | O_CLOEXEC), dir);
		copy(from, "cpuset.cpus", to);
		copy(from, "cpuset.mems", to);
		close(from);
		close(to);
	}
	if (strstr(parent, "/devices"))
		devices(dir);
	path(file, dir, "tasks");
	return must(open(file, O_WRONLY | O_CLOEXEC), file);
}

int main(int argc, char **argv) {
	static char json[2048];
	char dir[4096];
	int tasks[32], n = argc - 4, status;
	if (n < 1 || n > 32)
		return 2;
	char *rootfs = argv[1], *id = argv[3], **cgroup = argv + 4;
	path(dir, argv[2], id);
	must(mkdir(dir, 0700), dir);
	int state = must(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir);
	memset(json, ' ', sizeof json - 1);
	put(state, "config.json", json);
	for (int i = 0; i < n; i++)
		tasks[i] = join(cgroup[i], id);

	struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_CLEAR_SIGHAND,
	    .exit_signal = SIGCHLD};
	int pid = must(syscall(SYS_clone3, &args, sizeof args), "clone3");
	if (pid == 0)
		child(rootfs, id, cgroup, tasks, n);
	put(state, "state.tmp", json);
	must(renameat(state, "state.tmp", state, "state.json"), "rename");
	must(waitpid(pid, &status, 0), "wait");
	for (int i = 0; i < n; i++) {
		path(dir, cgroup[i], id);
		must(rmdir(dir), dir);
	}
	must(unlinkat(state, "state.json", 0), "unlink");
	must(unlinkat(state, "config.json", 0), "unlink");
	path(dir, argv[2], id);
	must(rmdir(dir), dir);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
