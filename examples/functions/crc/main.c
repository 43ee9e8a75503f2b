/* A function in C without a library: the CRC-32 (ISO 3309, as in zlib) of what is sent to it. It begins with an empty memory
   at every request, which costs some microseconds. */

typedef unsigned int u32;
typedef struct { void *at; u32 length; } vector;

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))
WASI(fd_read) u32 fd_read(u32 fd, const vector *v, u32 n, u32 *got);
WASI(fd_write) u32 fd_write(u32 fd, const vector *v, u32 n, u32 *put);

static unsigned char buffer[64 << 10];
static char answer[] = "Content-Type: text/plain\n\n00000000\n";

__attribute__((export_name("_start"))) void start(void) {
	u32 table[256], crc = ~0u, got, put;
	for (u32 i = 0; i < 256; i++) {
		u32 c = i;
		for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
		table[i] = c;
	}
	vector in = {buffer, sizeof buffer};
	while (fd_read(0, &in, 1, &got) == 0 && got > 0)
		for (u32 i = 0; i < got; i++) crc = table[(crc ^ buffer[i]) & 255] ^ crc >> 8;
	crc = ~crc;
	for (int i = 0; i < 8; i++) answer[sizeof answer - 3 - i] = "0123456789abcdef"[crc >> 4 * i & 15];
	vector out = {answer, sizeof answer - 1};
	fd_write(1, &out, 1, &put);
}
