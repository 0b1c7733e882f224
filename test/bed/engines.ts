// The engines of one test run. They are made when a test asks for them, once, and end with the run.

import { join } from 'node:path'
import type { Server } from 'node:http'
import { run } from './command.ts'
import { addPlugins, composeImages, composePlugins } from './compose.ts'
import { dindImage } from './dind-image.ts'
import { answers, Dockerd } from './dockerd.ts'
import { engineKit, kitEnvironment, type EngineKit } from './engine-kit.ts'
import { cacheName, socketFolder } from './folders.ts'
import { ensureImage, nodeImage, smallImage, type Image } from './image.ts'
import { lockAddress, tryListen, withLock } from './lock.ts'

/** What a test needs to reach an engine. */
export interface EngineFacts {
  readonly name: string
  readonly socketPath: string
  /** The docker program and its whole environment. */
  readonly cli: { readonly program: string; readonly env: NodeJS.ProcessEnv }
}

export type Change = 'start' | 'stop' | 'kill' | 'freeze' | 'thaw' | 'live-restore-on' | 'live-restore-off'

/** Runs at the same time with one cache; each has engine data of its own. */
const SLOTS = 8

/**
 * The number of this run, unique among those that go on now; the server listens there from then on.
 * Data of an engine cannot be shared, and a number that is used again finds its images in place.
 */
export async function claimSlot(server: Server, cache: string): Promise<{ slot: number; address: string }> {
  for (let slot = 0; slot < SLOTS; slot++) {
    const address = lockAddress(`${cacheName(cache)}-run-${slot}`)
    if (await tryListen(server, address)) return { slot, address }
  }
  throw new Error(`${SLOTS} test runs use ${cache} already`)
}

export class Engines {
  readonly #cache: string
  readonly #slot: number
  readonly #env: NodeJS.ProcessEnv
  readonly #spares = new Map<string, Promise<Dockerd>>()
  #kit: Promise<EngineKit> | undefined
  #main: Promise<EngineFacts> | undefined
  #ownMain: Dockerd | undefined

  constructor(cache: string, slot: number, env: NodeJS.ProcessEnv) {
    this.#cache = cache
    this.#slot = slot
    this.#env = env
  }

  /** The engine for all tests: the machine's own when one answers, else one of the bed; it has every image. */
  main(): Promise<EngineFacts> {
    return (this.#main ??= this.#makeMain())
  }

  /** One more engine, for a test that stops or kills it; it has only the small image. Names are per test file. */
  async spare(name: string): Promise<EngineFacts> {
    const making = this.#spares.get(name) ?? this.#startOwn(name, (kit) => [smallImage(kit)])
    this.#spares.set(name, making)
    return facts(await making)
  }

  /** One more engine with the servers' image, for a program that starts and stops it itself; `end` ends it, too. */
  own(name: string): Promise<Dockerd> {
    const making = this.#spares.get(name) ?? this.#startOwn(name, (kit) => [smallImage(kit), nodeImage(kit)])
    this.#spares.set(name, making)
    return making
  }

  /** Brings the image of Docker-in-Docker into a spare engine: 200 MB that few tests need. */
  async provideDind(name: string): Promise<void> {
    await this.#fill(await this.#getSpare(name), [dindImage(await this.#getKit())])
  }

  /** Brings the images of compose.yml into a spare engine, and the plugins into its docker program. */
  async provideCompose(name: string): Promise<void> {
    const engine = await this.#getSpare(name)
    const kit = await this.#getKit()
    const plugins = await withLock(`${cacheName(this.#cache)}-kit`, () => composePlugins(this.#cache))
    addPlugins(plugins, engine.cliEnvironment)
    await this.#fill(engine, await composeImages(this.#cache, kit))
  }

  async change(name: string, change: Change): Promise<void> {
    const engine = await this.#getSpare(name)
    if (change === 'live-restore-on' || change === 'live-restore-off')
      await engine.liveRestore(change === 'live-restore-on')
    else await engine[change]()
  }

  /** Ends what was started here, containers included. */
  async end(): Promise<void> {
    await this.#main?.catch(() => undefined)
    const spares = await Promise.allSettled(this.#spares.values())
    const own = spares.flatMap((spare) => (spare.status === 'fulfilled' ? [spare.value] : []))
    if (this.#ownMain) own.push(this.#ownMain)
    const failures = (await Promise.allSettled(own.map((engine) => engine.end()))).flatMap((end) =>
      end.status === 'rejected' ? [end.reason as unknown] : [],
    )
    if (failures.length > 0) throw new AggregateError(failures, 'an engine of the test bed did not end')
  }

  async #getSpare(name: string): Promise<Dockerd> {
    const engine = await this.#spares.get(name)
    if (!engine) throw new Error(`there is no spare engine ${name}`)
    return engine
  }

  async #makeMain(): Promise<EngineFacts> {
    const socketPath = await machineEngine(this.#env)
    if (socketPath === undefined) {
      this.#ownMain = await this.#startOwn('main', (kit) => [smallImage(kit), nodeImage(kit)])
      return facts(this.#ownMain)
    }
    const kit = await this.#getKit()
    const env = { ...kitEnvironment(kit), DOCKER_HOST: `unix://${socketPath}`, DOCKER_CONFIG: this.#folder('machine') }
    const program = join(kit.bin, 'docker')
    const cli = (...args: readonly string[]): Promise<string> => run(program, args, { env, timeoutMs: 120_000 })
    await this.#fill({ cli }, [smallImage(kit), nodeImage(kit)])
    return { name: 'machine', socketPath, cli: { program, env } }
  }

  async #startOwn(name: string, images: (kit: EngineKit) => readonly Image[]): Promise<Dockerd> {
    const uid = process.getuid?.()
    if (uid !== 0)
      throw new Error(`no Docker engine answers, and starting one needs root (this is user ${String(uid)})`)
    const kit = await this.#getKit()
    const data = join(this.#cache, 'engines', String(this.#slot), name)
    const engine = new Dockerd(name, kit, this.#folder(name), data)
    await engine.start()
    try {
      // A run that was killed may have left containers in the data.
      await engine.clear()
      await this.#fill(engine, images(kit))
    } catch (error) {
      await engine.end()
      throw error
    }
    return engine
  }

  #fill(engine: Pick<Dockerd, 'cli'>, images: readonly Image[]): Promise<void> {
    return withLock(`${cacheName(this.#cache)}-images`, async () => {
      for (const image of images) await ensureImage(engine, this.#cache, image)
    })
  }

  #getKit(): Promise<EngineKit> {
    return (this.#kit ??= withLock(`${cacheName(this.#cache)}-kit`, () => engineKit(this.#cache)))
  }

  #folder(name: string): string {
    return join(socketFolder(this.#cache, this.#slot), name)
  }
}

function facts(engine: Dockerd): EngineFacts {
  const { name, socketPath, program, cliEnvironment } = engine
  return { name, socketPath, cli: { program, env: cliEnvironment } }
}

/** The socket of the machine's own engine, if one answers. An engine behind TCP is not used. */
async function machineEngine(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const host = env['DOCKER_HOST'] ?? ''
  const candidates = [...(host.startsWith('unix://') ? [host.slice('unix://'.length)] : []), '/var/run/docker.sock']
  for (const socketPath of candidates) if (await answers(socketPath)) return socketPath
  return undefined
}
