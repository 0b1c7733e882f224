// Tar archives as the Engine API takes them: POSIX ustar, long names as GNU tar writes them. Everything in them belongs
// to root.

export interface TarEntry {
  /** Relative; of a folder with a slash behind it. */
  readonly path: string
  /** A file, a symbolic link, a folder. */
  readonly type: '0' | '2' | '5'
  readonly mode: number
  readonly size: number
  /** Unix seconds. */
  readonly mtime: number
  /** Where a symbolic link leads. */
  readonly link?: string
}

const BLOCK = 512
/** What fits into a header; longer names come in a record of their own before it. */
const NAME_BYTES = 100

/** What stands behind the last entry. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK)

/** What stands before an entry's content. @throws {RangeError} for a size or time that no header can hold */
export function tarHeader(entry: TarEntry): Buffer {
  const { path, link = '' } = entry
  return Buffer.concat([
    ...(Buffer.byteLength(path) > NAME_BYTES ? [longName('L', path)] : []),
    ...(Buffer.byteLength(link) > NAME_BYTES ? [longName('K', link)] : []),
    header(entry, entry.type),
  ])
}

/** What stands behind a content of this size. */
export function tarPadding(size: number): Buffer {
  return Buffer.alloc(-size & (BLOCK - 1))
}

/** A whole archive of a few small files. */
export function tarArchive(
  files: readonly { readonly name: string; readonly content: Buffer; readonly mode: number }[],
): Buffer {
  const parts = files.flatMap(({ name, content, mode }) => [
    tarHeader({ path: name, type: '0', mode, size: content.length, mtime: 0 }),
    content,
    tarPadding(content.length),
  ])
  return Buffer.concat([...parts, TAR_END])
}

function longName(type: 'L' | 'K', name: string): Buffer {
  const text = Buffer.from(`${name}\0`)
  const entry = { path: '././@LongLink', mode: 0o644, size: text.length, mtime: 0 }
  return Buffer.concat([header(entry, type), text, tarPadding(text.length)])
}

function header({ path, mode, size, mtime, link = '' }: Omit<TarEntry, 'type'>, type: string): Buffer {
  const block = Buffer.alloc(BLOCK)
  const put = (value: Buffer, offset: number, width: number): void => void value.copy(block, offset, 0, width)
  const number = (value: number, offset: number, width: number): void => {
    const text = value.toString(8).padStart(width - 1, '0')
    if (text.length >= width) throw new RangeError(`${path} is too large for a tar archive.`)
    block.write(text, offset, 'latin1')
  }
  put(Buffer.from(path), 0, NAME_BYTES)
  number(mode & 0o777, 100, 8)
  number(0, 108, 8)
  number(0, 116, 8)
  number(size, 124, 12)
  number(mtime, 136, 12)
  block.write(type, 156, 'latin1')
  put(Buffer.from(link), 157, NAME_BYTES)
  block.write('ustar  \0', 257, 'latin1')
  // The checksum is that of a header with spaces in its place.
  block.fill(' ', 148, 156)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}
