/*
 * A test of a download, in C: cc -o window window.c
 *
 *	sudo zctrace serve -- ./window sendfile FILE result.json
 *	zctrace report result.json --max-copies 0.01
 */
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "zctrace.h"

/* Another process that reads, so that its copies do not count. */
static pid_t reader(int socket, int others)
{
	static char buffer[1 << 16];
	pid_t child = fork();

	if (!child) {
		close(others);
		while (read(socket, buffer, sizeof(buffer)) > 0)
			;
		_exit(0);
	}
	return child;
}

static int by_sendfile(int to, int from, off_t size)
{
	off_t at = 0;

	while (at < size)
		if (sendfile(to, from, &at, size - at) <= 0)
			return -1;
	return 0;
}

static int by_copying(int to, int from)
{
	static char buffer[1 << 16];
	ssize_t many;

	while ((many = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, many) != many)
			return -1;
	return many ? -1 : 0;
}

int main(int argc, char **argv)
{
	struct zctrace_window window;
	struct stat status;
	int ends[2], file, failed;
	pid_t child;

	if (argc != 4 || (file = open(argv[2], O_RDONLY)) < 0 || fstat(file, &status) ||
	    socketpair(AF_UNIX, SOCK_STREAM, 0, ends)) {
		fprintf(stderr, "usage: window sendfile|copy FILE RESULT\n");
		return 2;
	}
	child = reader(ends[1], ends[0]);
	close(ends[1]);
	if (zctrace_open(&window, ZCTRACE_PROCESS)) {
		fprintf(stderr, "%s\n", window.error);
		return 1;
	}
	failed = strcmp(argv[1], "copy") ? by_sendfile(ends[0], file, status.st_size)
					 : by_copying(ends[0], file);
	if (zctrace_close(&window, argv[3])) {
		fprintf(stderr, "%s\n", window.error);
		return 1;
	}
	close(ends[0]);
	waitpid(child, NULL, 0);
	return failed ? 1 : 0;
}
