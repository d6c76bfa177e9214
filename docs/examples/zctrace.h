/*
 * Windows of zctrace, for programs in C: what the CPU copies between zctrace_open() and
 * zctrace_close(). The protocol is described in docs/reference/windows.md; this is version 1.
 *
 * The program runs below `sudo zctrace serve -- COMMAND`. Linux, 64 bits, C99.
 */
#ifndef ZCTRACE_H
#define ZCTRACE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ZCTRACE_PROTOCOL 1
#define ZCTRACE_MARKER 0x7a637472 /* prctl(2) has no such option: EINVAL, and nothing else */
#define ZCTRACE_PROGRAM 9

enum zctrace_scope { ZCTRACE_THREAD = 1, ZCTRACE_PROCESS = 2 };

struct zctrace_window {
	FILE *collector;
	unsigned long nonce;
	enum zctrace_scope scope;
	char error[512]; /* why the last call has failed */
};

static inline int zctrace_failed(struct zctrace_window *window, const char *why)
{
	snprintf(window->error, sizeof(window->error), "%s", why);
	if (window->collector)
		fclose(window->collector);
	window->collector = NULL;
	return -1;
}

static inline void zctrace_say(struct zctrace_window *window, const char *line)
{
	/* Without a signal where it is gone: the answer is missed then. */
	if (send(fileno(window->collector), line, strlen(line), MSG_NOSIGNAL) < 0)
		return;
}

/* Begin to count: for this thread, or for the process with all that it starts. 0, or -1. */
static inline int zctrace_open(struct zctrace_window *window, enum zctrace_scope scope)
{
	const char *path = getenv("ZCTRACE_SOCKET"), *nonce;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char line[512];
	int fd;

	memset(window, 0, sizeof(*window));
	window->scope = scope;
	if (!path || strlen(path) >= sizeof(address.sun_path))
		return zctrace_failed(window, "no collector: sudo zctrace serve -- COMMAND");
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    !(window->collector = fdopen(fd, "r+"))) {
		if (fd >= 0)
			close(fd);
		return zctrace_failed(window, "the collector does not answer");
	}
	snprintf(line, sizeof(line), "{\"protocol\": %d, \"scope\": \"%s\"}\n", ZCTRACE_PROTOCOL,
		 scope == ZCTRACE_THREAD ? "thread" : "process");
	zctrace_say(window, line);
	if (!fgets(line, sizeof(line), window->collector))
		return zctrace_failed(window, "the collector has ended");
	nonce = strstr(line, "\"nonce\":");
	if (!nonce)
		return zctrace_failed(window, line); /* an error, as JSON */
	window->nonce = strtoul(nonce + strlen("\"nonce\":"), NULL, 10);
	prctl(ZCTRACE_MARKER, window->nonce, 1, ZCTRACE_PROGRAM, (unsigned long)scope);
	return 0;
}

/* End it, and write what was counted to a file that zctrace report and compare read. 0, or -1. */
static inline int zctrace_close(struct zctrace_window *window, const char *result)
{
	static const char error[] = "{\"error\":";
	char line[512] = "";
	FILE *file;

	prctl(ZCTRACE_MARKER, window->nonce, 2, ZCTRACE_PROGRAM, (unsigned long)window->scope);
	zctrace_say(window, "{\"done\": true}\n");
	if (!fgets(line, sizeof(line), window->collector))
		return zctrace_failed(window, "the collector has ended");
	if (!strncmp(line, error, strlen(error)))
		return zctrace_failed(window, line); /* as JSON */
	file = fopen(result, "w");
	if (!file)
		return zctrace_failed(window, "the result cannot be written");
	fprintf(file, "{\"evidence\": [%s", line);
	while (!strchr(line, '\n') && fgets(line, sizeof(line), window->collector))
		fputs(line, file);
	fputs("]}\n", file);
	fclose(window->collector);
	window->collector = NULL;
	return fclose(file) ? zctrace_failed(window, "the result cannot be written") : 0;
}

#endif
