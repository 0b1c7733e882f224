// The configuration that is used when there is none: three servers that come with this package.

import { mkdir } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import type { ConfigText } from './load.ts'

const require = createRequire(import.meta.url)

/**
 * The quickstart configuration, for `loadConfig`. Makes the folders that it names below `stateFolder` (absolute). Its
 * commands are absolute paths into this package's dependencies: they run from any folder and need no network.
 */
export async function quickstart(stateFolder: string): Promise<ConfigText> {
  const files = join(stateFolder, 'files')
  const memory = join(stateFolder, 'memory')
  await mkdir(files, { recursive: true })
  await mkdir(memory, { recursive: true })
  const text = `# Three servers to start with. To change them, copy this to berth.yaml.

services:
  # Something of everything: tools, resources, prompts, progress. Good for a first look.
  everything:
    command: ${command('@modelcontextprotocol/server-everything')}
    port: 11100
    # Each session has a process of its own, as if the client had started the server itself.
    isolation: session

  # Reads and writes the files of one folder, and only of that one.
  files:
    command: ${command('@modelcontextprotocol/server-filesystem', files)}
    port: 11101
    isolation: session

  # A graph of what was learned, kept across sessions.
  memory:
    command: ${command('@modelcontextprotocol/server-memory')}
    port: 11102
    # It keeps everything in one file, so all clients have the same memory anyway: what one stores, the others find.
    # One process for all of them says so openly. For a memory that only one client sees, write a service of its own
    # with another file and \`clients: [claude-code]\`.
    isolation: shared
    env:
      MEMORY_FILE_PATH: ${JSON.stringify(join(memory, 'memory.jsonl'))}
`
  return { text, file: 'quickstart', folder: stateFolder }
}

/** A command as a YAML list in quotes, since paths may hold any character. */
function command(name: string, ...args: string[]): string {
  return `[${[process.execPath, program(name), ...args].map((word) => JSON.stringify(word)).join(', ')}]`
}

/** The absolute path of the one program of a dependency. */
function program(name: string): string {
  const description = require.resolve(`${name}/package.json`)
  const { bin } = require(description) as { bin: Readonly<Record<string, string>> }
  const [path] = Object.values(bin)
  if (path === undefined) throw new Error(`${name} has no program`)
  return resolve(dirname(description), path)
}
