// Watches the folders around one file, and collects what happens there.

import { watch, type FSWatcher } from 'node:fs'
import { readlink, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'

/** Whether something happened since the last look, and waits for it. */
export class Changes {
  readonly #signal: AbortSignal
  #happened = false
  #wake: (() => void) | undefined

  constructor(signal: AbortSignal) {
    this.#signal = signal
  }

  notice(): void {
    this.#happened = true
    this.#wake?.()
  }

  /** True when something happened before `ms` were over; false at their end and on abort. */
  async wait(ms: number): Promise<boolean> {
    if (!this.#happened && !this.#signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer)
          this.#signal.removeEventListener('abort', done)
          this.#wake = undefined
          resolve()
        }
        const timer = setTimeout(done, ms)
        this.#signal.addEventListener('abort', done)
        this.#wake = done
      })
    }
    const happened = this.#happened && !this.#signal.aborted
    this.#happened = false
    return happened
  }

  /** Returns when nothing happened for `quietMs`, at the latest after `latestMs`. */
  async settle(quietMs: number, latestMs: number): Promise<void> {
    const end = performance.now() + latestMs
    while (performance.now() < end && (await this.wait(quietMs)));
  }
}

/**
 * Watches folders and not the file: editors replace a file by renaming another one over it, and a watch on the file
 * would stay with the old one.
 */
export class WatchedFolders implements Disposable {
  readonly #watchers = new Map<string, FSWatcher>()
  readonly #onEvent: () => void

  constructor(onEvent: () => void) {
    this.#onEvent = onEvent
  }

  /** Watches exactly these from now on. `folders` maps what identifies a folder to its path. */
  follow(folders: ReadonlyMap<string, string>): void {
    for (const [identity, watcher] of this.#watchers) {
      if (folders.has(identity)) continue
      watcher.close()
      this.#watchers.delete(identity)
    }
    for (const [identity, path] of folders) {
      if (this.#watchers.has(identity)) continue
      try {
        const watcher = watch(path, this.#onEvent)
        // It ends with its folder; the next look finds what stands there then.
        watcher.on('error', this.#onEvent)
        this.#watchers.set(identity, watcher)
      } catch {
        // No watch to be had (a limit of the kernel, a folder just gone): the look after `relistMs` remains.
      }
    }
  }

  [Symbol.dispose](): void {
    this.follow(new Map())
  }
}

/** Bounds a chain of symbolic links, as the kernel does. */
const MAX_LINKS = 40

/**
 * The folders in which a change can change the file, by identity: its own and that of each symbolic link on the way to
 * it, as in a Kubernetes config map, where the link `..data` beside the file is swapped. Of a folder that is missing,
 * the nearest one above it that is there.
 */
export async function foldersOf(path: string): Promise<Map<string, string>> {
  const folders = new Map<string, string>()
  let next: string | undefined = path
  for (let links = 0; next !== undefined && links < MAX_LINKS; links++) {
    const at: string = next
    const [identity, folder] = await nearestFolder(dirname(at))
    folders.set(identity, folder)
    next = await readlink(at).then(
      (target) => resolve(dirname(at), target),
      () => undefined,
    )
  }
  return folders
}

/** A folder that is made anew under the same path is another folder, and the watch on the old one is dead. */
async function nearestFolder(path: string): Promise<[identity: string, path: string]> {
  for (let folder = path; ; folder = dirname(folder)) {
    const stats = await stat(folder).catch(() => undefined)
    if (stats?.isDirectory()) return [`${folder}:${stats.dev}:${stats.ino}:${stats.birthtimeMs}`, folder]
    if (folder === dirname(folder)) return ['', folder]
  }
}
