// A server's stderr: always read, so that the server never waits for it, and logged within bounds.

import { LineSplitter } from './framing.ts'
import { fromWire } from './json.ts'
import type { Log } from './log.ts'

const LINE_BYTES = 64 * 1024
const LOGGED_CHARACTERS = 500
const TOLD_CHARACTERS = 300
const LINES_PER_SECOND = 10
/** A shorter value says too little to be a secret, and too much would be taken for it. */
const SECRET_CHARACTERS = 8
/** Runtimes end their words with a stack or a version; the line that tells is before that. */
const TELLING = /error|exception|fatal|fail|denied|cannot|not found|usage/i

/** What unshare of util-linux 2.38 says before it exits with 1 where a signal has ended what it started. */
const ENDED_BY_SIGNAL = 'unshare: sigprocmask unblock failed'

export interface StderrLog {
  push(chunk: Buffer): void
  /** The containment has said that a signal ended the server (containment.ts); known after `lastLine`. */
  readonly endedBySignal: boolean
  /**
   * The last line that speaks of an error, else the last one, for clients: bounded, printable, without the values of
   * the environment. Call it once, at the end.
   */
  lastLine(): string
}

/** Values of `env` that a server prints are replaced by their names, here and in what clients are told. */
export function createStderrLog(log: Log, env: Readonly<Record<string, string>>): StderrLog {
  const secrets = Object.entries(env)
    // It is read line by line, and so is a value of several lines, such as a private key.
    .flatMap(([name, value]) => value.split(/\r?\n/).map((line) => [name, line] as const))
    .filter(([, value]) => value.length >= SECRET_CHARACTERS)
    .toSorted(([, a], [, b]) => b.length - a.length)
  let last = ''
  let telling = ''
  let second = 0
  let lines = 0
  let endedBySignal = false

  const lineRead = (wire: string) => {
    let text = fromWire(wire)
    for (const [name, value] of secrets) text = text.replaceAll(value, `$${name}`)
    text = text.replace(/[^\P{C}\t]/gu, '').trim()
    if (text === '') return
    if (text.startsWith(ENDED_BY_SIGNAL)) {
      endedBySignal = true
      return
    }
    last = text
    if (TELLING.test(text)) telling = text
    const now = Math.floor(Date.now() / 1000)
    if (now !== second) {
      second = now
      lines = 0
    }
    if (++lines <= LINES_PER_SECOND) log('info', 'stderr', { line: text.slice(0, LOGGED_CHARACTERS) })
  }
  const splitter = new LineSplitter(LINE_BYTES, { line: lineRead, oversized: (head) => lineRead(head) })
  return {
    push: (chunk) => splitter.push(chunk),
    get endedBySignal() {
      return endedBySignal
    },
    lastLine: () => {
      splitter.push(Buffer.from('\n'))
      return (telling || last).slice(0, TOLD_CHARACTERS)
    },
  }
}
