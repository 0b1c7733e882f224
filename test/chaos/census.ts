// What there is of one Berth and its engines on this machine, counted: two counts are equal when nothing was left behind
// and nothing is missing.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'

import type { BedEngine } from '../bed/docker.ts'
import type { Berth } from '../e2e/berth.ts'

type Docker = (...args: readonly string[]) => Promise<string>
/** From what it is to how many there are. */
type Counts = Readonly<Record<string, number>>

export interface Census {
  /** By state and labels, managed ones and all others. */
  readonly containers: { readonly outer: Counts; readonly inner: Counts }
  readonly volumes: { readonly outer: Counts; readonly inner: Counts }
  readonly networks: { readonly outer: Counts; readonly inner: Counts }
  /** What Berth has started, and the control plane, by their command lines. */
  readonly processes: Counts
  /** Of the outer engine: its own, and all below its containers' shims, so those of the inner engine and its containers. */
  readonly engine: Counts
  /** What Berth remembers of its processes, by kind. */
  readonly records: Counts
  /** Unix sockets in the state folder, and those that somebody listens on. */
  readonly sockets: { readonly files: Counts; readonly listening: Counts }
  /** Below the outer engine's folders. */
  readonly mounts: Counts
}

/** @param inside runs `docker …` against the inner engine */
export async function census(berth: Berth, outer: BedEngine, inside: Docker): Promise<Census> {
  const both = async (count: (docker: Docker) => Promise<Counts>): Promise<{ outer: Counts; inner: Counts }> => {
    const [mine, inner] = await Promise.all([count(outer.cli), count(inside)])
    return { outer: mine, inner }
  }
  const folder = dirname(outer.socketPath)
  const ids = (await outer.cli('ps', '--all', '--quiet', '--no-trunc')).split('\n')
  const data = await outer.cli('info', '--format', '{{.DockerRootDir}}')
  return {
    containers: await both(containers),
    volumes: await both((docker) => named(docker, 'volume')),
    networks: await both((docker) => named(docker, 'network')),
    // Each life of Envoy has a base id of its own.
    processes: counted(berth.processes().map(({ command }) => command.replace(/ --base-id \d+/, ''))),
    engine: counted(engineProcesses(folder, ids).map(({ command }) => programOf(command))),
    records: records(join(berth.home, 'berth.db')),
    sockets: { files: socketFiles(join(berth.home, 'run')), listening: listening(berth.home) },
    mounts: mounts(folder, data),
  }
}

interface Process {
  readonly pid: number
  readonly parent: number
  /** In each PID namespace, from this one inwards. */
  readonly pids: readonly number[]
  /** The arguments, with spaces between them. */
  readonly command: string
}

/**
 * Those of an engine with this run folder, and everything below its shims.
 *
 * @param ids of its containers, if only their shims count: one that is killed while it starts a container leaves a shim
 *   that it does not know itself any more
 */
export function engineProcesses(folder: string, ids?: readonly string[]): Process[] {
  const all = processes()
  const isShim = ({ command }: Process): boolean => programOf(command) === 'containerd-shim-runc-v2'
  const own = all
    .filter(({ command }) => command.includes(`${folder}/`) && !/^\S*docker /.test(command))
    .filter((each) => !ids || !isShim(each) || ids.some((id) => each.command.includes(` ${id} `)))
  const shims = own.filter(isShim)
  const found = new Map(own.map((process) => [process.pid, process]))
  const below = new Set(shims.map(({ pid }) => pid))
  for (let before = -1; before !== below.size;) {
    before = below.size
    for (const process of all) if (below.has(process.parent)) below.add(process.pid)
  }
  for (const process of all) if (below.has(process.pid)) found.set(process.pid, process)
  return [...found.values()]
}

function processes(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const status = readFileSync(`/proc/${name}/status`, 'latin1')
        const field = (key: string): string => new RegExp(`^${key}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''
        const command = readFileSync(`/proc/${name}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()
        if (command === '') return [] // a zombie, or a thread of the kernel
        const pids = field('NSpid').split('\t').map(Number)
        return [{ pid: Number(name), parent: Number(field('PPid')), pids, command }]
      } catch {
        return [] // it ended while it was looked at
      }
    })
}

/** What differs from one life to the next is left out. */
function programOf(command: string): string {
  return basename(command.split(' ')[0]!)
}

async function containers(docker: Docker): Promise<Counts> {
  const labels = ['berth.managed', 'berth.service', 'berth.client'].map((label) => `{{.Label "${label}"}}`)
  const lines = await docker('ps', '--all', '--format', `{{.State}} {{.Image}} ${labels.join(' ')}`)
  return counted(lines.split('\n'))
}

async function named(docker: Docker, what: 'volume' | 'network'): Promise<Counts> {
  const names = await docker(what, 'ls', '--format', '{{.Name}}')
  return counted(names.split('\n').map(withoutIds))
}

function records(file: string): Counts {
  const store = new DatabaseSync(file, { readOnly: true })
  try {
    return counted(
      store
        .prepare('SELECT kind FROM processes')
        .all()
        .map(({ kind }) => String(kind)),
    )
  } finally {
    store.close()
  }
}

function socketFiles(folder: string): Counts {
  const names = readdirSync(folder).filter((name) => statSync(join(folder, name)).isSocket())
  return counted(names.map(kindOfSocket))
}

function listening(home: string): Counts {
  const accepting = /^\S+: \S+ \S+ 00010000 .* (\/\S+)$/
  const paths = readFileSync('/proc/net/unix', 'latin1')
    .split('\n')
    .flatMap((line) => accepting.exec(line)?.[1] ?? [])
  return counted(paths.filter((path) => path.startsWith(`${home}/`)).map((path) => kindOfSocket(basename(path))))
}

/** Without slot and generation. */
function kindOfSocket(name: string): string {
  return name.replace(/^[0-9a-f]{10}-\d+/, '*')
}

function mounts(...folders: readonly string[]): Counts {
  const points = readFileSync('/proc/self/mounts', 'latin1')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    // Each crash of dockerd leaves its bind mount of its data folder on itself under that of the next start; and one while
    // it creates a container, the layer in which it prepares `/etc/hosts` and the like: nobody but dockerd can tell whose.
    .filter((point) => folders.some((folder) => point.startsWith(`${folder}/`)) && !point.endsWith('-init/merged'))
  return counted(points.map(withoutIds))
}

function withoutIds(text: string): string {
  return text.replace(/[0-9a-f]{64}|(?<=netns\/)[0-9a-f]{12}/g, '*')
}

function counted(names: readonly string[]): Counts {
  const counts: Record<string, number> = {}
  for (const name of names.toSorted()) if (name !== '') counts[name] = (counts[name] ?? 0) + 1
  return counts
}
