// Runs one program to its end: no shell, always with a deadline, because a foreign tool may wait for ever.

import { execFile } from 'node:child_process'

export interface CommandOptions {
  readonly cwd?: string
  /** The whole environment; absent: that of this process. */
  readonly env?: NodeJS.ProcessEnv
  /** Killed after this; 60 s when absent. */
  readonly timeoutMs?: number
}

/** Standard output, trimmed. Rejects with the program's own words (the end of stderr) and its exit code. */
export function run(program: string, args: readonly string[], options: CommandOptions = {}): Promise<string> {
  const timeout = options.timeoutMs ?? 60_000
  return new Promise((resolve, reject) => {
    execFile(
      program,
      args,
      { ...options, timeout, killSignal: 'SIGKILL', maxBuffer: 32 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (!error) return resolve(stdout.trim())
        const why = error.killed ? `no end within ${timeout} ms` : `exit code ${String(error.code)}`
        const said = stderr.trim().slice(-2000)
        reject(new Error(`${program} ${args.slice(0, 6).join(' ')}: ${why}\n${said}`, { cause: error }))
      },
    )
  })
}
