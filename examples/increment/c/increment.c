/* increment: the course's first server in C. A client sends a number on a line, it gets the number
 * plus one. One thread a client, no state. It listens on $HOST:$PORT; SIGTERM ends it at once, which
 * loses nothing.
 *
 *   cc -O2 -pthread -o increment increment.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LONGEST = 63 }; /* characters of a line before its \n; a longer one is an error */

static void fail(const char *what) {
	perror(what);
	exit(1);
}

/* read_line keeps at most LONGEST + 1 characters of a line and returns how many, or -1 at the end. */
static int read_line(FILE *in, char *line) {
	int n = 0, c;
	while ((c = getc(in)) != EOF && c != '\n')
		if (n <= LONGEST)
			line[n++] = (char)c;
	line[n] = '\0';
	return c == EOF ? -1 : n; /* half a line is no line */
}

/* parse accepts -?[0-9]+ below 2^63-1. strtoll alone would also take blanks and a plus sign. */
static int parse(char *line, int n, long long *number) {
	if (n > LONGEST)
		return 0;
	if (n > 0 && line[n - 1] == '\r')
		line[--n] = '\0'; /* telnet and Windows end lines with \r\n */
	const char *digits = line + (line[0] == '-');
	size_t count = strspn(digits, "0123456789");
	if (count == 0 || digits + count != line + n)
		return 0;
	errno = 0;
	*number = strtoll(line, NULL, 10);
	return errno == 0 && *number < INT64_MAX;
}

static void *converse(void *arg) {
	int fd = (int)(intptr_t)arg, n;
	char line[LONGEST + 2];
	FILE *in = fdopen(fd, "r");
	if (in == NULL) {
		close(fd);
		return NULL;
	}
	while ((n = read_line(in, line)) >= 0) {
		long long number;
		int sent = parse(line, n, &number)
			? dprintf(fd, "%lld\n", number + 1)
			: dprintf(fd, "error want a whole number below %lld\n", (long long)INT64_MAX);
		if (sent < 0)
			break; /* the client left */
	}
	fclose(in);
	return NULL;
}

static int listen_on(const char *host, const char *port) {
	struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *at;
	int err = getaddrinfo(host, port, &hints, &at), yes = 1;
	if (err != 0) {
		fprintf(stderr, "listen on %s:%s: %s\n", host, port, gai_strerror(err));
		exit(1);
	}
	int fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
	    bind(fd, at->ai_addr, at->ai_addrlen) < 0 || listen(fd, 128) < 0)
		fail("listen");
	freeaddrinfo(at);
	return fd;
}

/* announce says which port it became: with PORT=0 the kernel chooses. */
static void announce(int fd) {
	struct sockaddr_storage at;
	socklen_t len = sizeof at;
	char host[64], port[8];
	if (getsockname(fd, (struct sockaddr *)&at, &len) < 0 ||
	    getnameinfo((struct sockaddr *)&at, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
		fail("getsockname");
	fprintf(stderr, "listening on %s:%s\n", host, port);
}

int main(void) {
	const char *host = getenv("HOST"), *port = getenv("PORT");
	signal(SIGPIPE, SIG_IGN); /* a client that left is an error of dprintf, not our death */
	int fd = listen_on(host ? host : "127.0.0.1", port ? port : "0");
	announce(fd);
	for (;;) {
		int client = accept(fd, NULL, NULL);
		pthread_t thread;
		if (client < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			fail("accept");
		}
		if (pthread_create(&thread, NULL, converse, (void *)(intptr_t)client) != 0) {
			close(client); /* no more threads: this client is turned away, the others go on */
			continue;
		}
		pthread_detach(thread);
	}
}
