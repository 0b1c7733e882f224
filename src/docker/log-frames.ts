// The log of a container without a terminal, as the Engine API frames it: a byte for the stream, three of nothing, four
// for the length, then as many bytes.

const HEADER = 8
const LONGEST = 300

/** The last line with something in it, cut to what one line of a message bears. */
export function lastLine(log: Buffer): string {
  const parts: Buffer[] = []
  for (let at = 0; at + HEADER <= log.length;) {
    const end = at + HEADER + log.readUInt32BE(at + 4)
    parts.push(log.subarray(at + HEADER, end))
    at = end
  }
  const lines = Buffer.concat(parts).toString('utf8').split('\n')
  return (lines.findLast((line) => line.trim() !== '') ?? '').trim().slice(0, LONGEST)
}
