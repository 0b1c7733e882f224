// The shape of a command: one module of this folder each, with these names as its exports, listed in commands.ts.

import type { Writable } from 'node:stream'

import type { ConfigFile } from '../config/file.ts'

export interface CommandOption {
  readonly type: 'boolean' | 'string'
  readonly short?: string
  /** What stands for the value in the help, e.g. `NAME`. */
  readonly value?: string
  readonly summary: string
}

export interface Command {
  readonly name: string
  /** One line in the list of commands. */
  readonly summary: string
  /** What follows `berth <name>`, e.g. `<service> [tool] [json]`: it is also what the arguments are checked against. */
  readonly usage: string
  /** Beside those that every command has: `-c`, `--home`, `--json`, `--help`. */
  readonly options: Readonly<Record<string, CommandOption>>
  /** Resolves to the exit code: 0, or 1 for a failure that it has already told. Throws UsageError, OperatorError. */
  readonly run: (context: CommandContext) => Promise<number>
}

export interface CommandContext {
  /** As many as `usage` names, without those in brackets at the least. */
  readonly args: readonly string[]
  readonly options: Readonly<Record<string, string | boolean | undefined>>
  /** `--json` was given: standard output holds one JSON document and nothing else. */
  readonly json: boolean
  /** Undefined: there is none, so the quickstart configuration. The file need not exist when it was named. */
  readonly config: ConfigFile | undefined
  /** The state folder, absolute; it need not exist. */
  readonly home: string
  /** The folder of downloads, absolute; it need not exist. */
  readonly cache: string
  /** Of Berth. */
  readonly version: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdout: Output
  readonly stderr: Output
  /** A line, or several, to standard output. */
  readonly print: (text: string) => void
  /** A line, or several, to standard error: progress, warnings. */
  readonly note: (text: string) => void
}

export interface Output extends Writable {
  readonly isTTY?: boolean
}

/** The command line itself is wrong: exit code 2. The message says what was expected. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
