// A function in AssemblyScript: the Markdown that is sent to it as HTML, as far as headings, lists, paragraphs, `code`, *emphasis*, **strong** and
// [links](to) go. Requests come as SCGI on standard input, answers go as a CGI response to standard output. Its instances live on from call to call; with
// --runtime stub they free nothing, so each call begins where heap.reset leaves it.

// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_read")
declare function fd_read(fd: u32, vector: usize, n: u32, got: usize): u32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "fd_write")
declare function fd_write(fd: u32, vector: usize, n: u32, put: usize): u32;

const most: u32 = 1024 * 1024;
const vector = memory.data(12);
const input = memory.data(1048576);

export function handle(): void {
  heap.reset();
  let length: u32 = 0;
  do {
    store<u32>(vector, <u32>input + length);
    store<u32>(vector, most - length, 4);
    if (fd_read(0, vector, 1, vector + 8) != 0) break;
    length += load<u32>(vector, 8);
  } while (load<u32>(vector, 8) > 0 && length < most);
  write(length == most
    ? "Status: 413 Content Too Large\nContent-Type: text/plain\n\nat most a megabyte\n"
    : "Content-Type: text/html; charset=utf-8\nContent-Security-Policy: default-src 'none'\n\n" + html(body(length)));
}

/** body is what follows the variables: a number, a colon, so many bytes, a comma (a netstring). */
function body(length: u32): string {
  let at: u32 = 0, size: u32 = 0;
  for (; at < length && load<u8>(input + at) != 58; at++) size = size * 10 + load<u8>(input + at) - 48;
  at += size + 2;
  return at < length ? String.UTF8.decodeUnsafe(input + at, length - at) : "";
}

function write(text: string): void {
  const bytes = String.UTF8.encode(text);
  let from: u32 = 0;
  while (from < <u32>bytes.byteLength) {
    store<u32>(vector, changetype<usize>(bytes) + from);
    store<u32>(vector, bytes.byteLength - from, 4);
    if (fd_write(1, vector, 1, vector + 8) != 0) return;
    from += load<u32>(vector, 8);
  }
}

function html(text: string): string {
  let out = "", open = ""; // the element that lines are added to
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i].trim();
    let level = 0;
    while (level < 6 && level < line.length && line.charCodeAt(level) == 35) level++;
    const heading = level > 0 && line.charCodeAt(level) == 32;
    const item = line.startsWith("- ") || line.startsWith("* ");
    const want = line == "" || heading ? "" : item ? "ul" : "p";
    if (open != "" && open != want) {
      out += "</" + open + ">\n";
      open = "";
    }
    if (heading) {
      out += "<h" + level.toString() + ">" + inline(line.substring(level + 1)) + "</h" + level.toString() + ">\n";
    } else if (want != "") {
      out += open == want ? (item ? "" : "\n") : "<" + want + ">";
      open = want;
      out += item ? "<li>" + inline(line.substring(2)) + "</li>" : inline(line);
    }
  }
  return open == "" ? out : out + "</" + open + ">\n";
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** inline looks for the next mark, and takes it for one if there is its other half. */
function inline(text: string): string {
  let out = "";
  for (let at = 0; at < text.length; ) {
    const rest = text.substring(at);
    const mark = rest.startsWith("**") ? "**" : rest.startsWith("*") ? "*" : rest.startsWith("`") ? "`" : "";
    const end = mark == "" ? -1 : rest.indexOf(mark, mark.length + 1);
    if (end > 0) {
      const element = mark == "**" ? "strong" : mark == "*" ? "em" : "code", within = rest.substring(mark.length, end);
      out += "<" + element + ">" + (mark == "`" ? escaped(within) : inline(within)) + "</" + element + ">";
      at += end + mark.length;
      continue;
    }
    const middle = rest.startsWith("[") ? rest.indexOf("](") : -1, close = middle > 0 ? rest.indexOf(")", middle) : -1;
    if (close > 0) {
      const to = rest.substring(middle + 2, close);
      const safe = to.startsWith("https://") || to.startsWith("http://") || to.startsWith("/") || to.startsWith("#");
      out += safe ? '<a href="' + escaped(to) + '">' + inline(rest.substring(1, middle)) + "</a>" : escaped(rest.substring(0, close + 1));
      at += close + 1;
      continue;
    }
    out += escaped(text.charAt(at));
    at++;
  }
  return out;
}
