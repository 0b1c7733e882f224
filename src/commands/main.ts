// Runs this process's own command line.

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

import { runCommandLine } from './command-line.ts'
import { COMMANDS } from './commands.ts'

/** Resolves to the exit code. */
export async function main(): Promise<number> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `berth ls | head` closes the pipe: nobody is left to write for.
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  const { env, stdout, stderr } = process
  return runCommandLine(COMMANDS, process.argv.slice(2), {
    env,
    stdout,
    stderr,
    cwd: process.cwd(),
    version: version(),
  })
}

/** Of this package. The module runs from src/commands and, bundled, from dist. */
function version(): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    try {
      const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
      if (name === 'mcp-berth') return version
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    if (folder === dirname(folder))
      throw new Error(`package.json of mcp-berth is missing above ${import.meta.dirname}.`)
  }
}
