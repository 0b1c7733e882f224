// `berth image build`: the image of a ready service, made on an engine of the configuration.

import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { Readable } from 'node:stream'

import type { CatalogEntry } from '../catalog/entry.ts'
import { contextOf, entryPointOf, imageOf, installCommandOf } from '../catalog/recipe.ts'
import { tarOf } from '../catalog/tar.ts'
import { engineAddresses } from '../docker/addresses.ts'
import { BuildContextError, buildImage, ImageBuildError } from '../docker/build.ts'
import { type EngineAddress, engineProblem } from '../docker/engine.ts'
import { nearest } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import { foldersOf } from '../slots/folders.ts'
import { entryNamed } from './catalog.ts'
import { type CommandContext, UsageError } from './command.ts'
import { writtenEngines } from './written-engines.ts'

export const name = 'image'
export const summary = 'Build the image of a ready service (build).'
export const usage = '<build> <name>'
export const options = {
  engine: { type: 'string', value: 'NAME', summary: 'The engine of the configuration (else its first).' },
  base: { type: 'string', value: 'IMAGE', summary: 'Build upon this image instead of the usual one.' },
  vendored: {
    type: 'string',
    value: 'DIR',
    summary: 'Take the installed package from this folder; the build then needs no network.',
  },
} as const

/** Fetching a base image and a package over a slow line. */
const BUILD_TIMEOUT_MS = 30 * 60_000

export async function run(context: CommandContext): Promise<number> {
  const { args, json, print, note } = context
  const [what, name = ''] = args
  if (what !== 'build') throw new UsageError(`berth image has build, not ${what}.`)
  const entry = entryNamed(name)
  const vendored = folderOption(context, entry)
  const address = await engineOf(context)
  const base = textOption(context, 'base')
  const image = imageOf(entry)

  note(`Building ${image} on the engine ${address.name} ...`)
  const parts = contextOf(entry, { ...(base !== undefined && { base }), ...(vendored !== undefined && { vendored }) })
  const id = await build(address, {
    context: Readable.from(tarOf(parts), { objectMode: false }),
    tag: image,
    offline: vendored !== undefined,
    note,
  })
  print(json ? JSON.stringify({ name: entry.name, image, id, engine: address.name }, null, 2) : `${image} is ready.`)
  return 0
}

async function build(
  address: EngineAddress,
  { note, ...build }: { context: Readable; tag: string; offline: boolean; note: (line: string) => void },
): Promise<string> {
  try {
    return await buildImage(address, build, note, AbortSignal.timeout(BUILD_TIMEOUT_MS))
  } catch (error) {
    if (error instanceof ImageBuildError) {
      throw new OperatorError(`The engine ${address.name} could not build ${build.tag}: ${error.message}`, {
        cause: error,
      })
    }
    if (error instanceof BuildContextError) throw new OperatorError(error.message, { cause: error })
    throw new OperatorError(problemLine(engineProblem(address, error)), { cause: error })
  }
}

/** The folder of the installed package, absolute. Throws OperatorError when the entry's program is not in it. */
function folderOption(context: CommandContext, entry: CatalogEntry): string | undefined {
  const written = textOption(context, 'vendored')
  if (written === undefined) return undefined
  const folder = resolve(written)
  const program = entryPointOf(entry, folder)[1]!
  if (existsSync(program)) return folder
  throw new OperatorError(
    `${written} does not have ${entry.package.name} installed: ${program} is missing.\n` +
      `Where there is a network, and with the same processor and version of ${runtimeOf(entry)} as in the image, run:\n` +
      `  ${installCommandOf(entry, written).join(' ')}`,
  )
}

function runtimeOf({ package: { registry } }: CatalogEntry): string {
  return registry === 'npm' ? 'Node' : 'Python'
}

/** The engine that `--engine` names, else the first. Throws OperatorError. */
async function engineOf(context: CommandContext): Promise<EngineAddress> {
  const { addresses, problems } = engineAddresses(await writtenEngines(context), context.env, foldersOf(context.home))
  const name = textOption(context, 'engine')
  const address = name === undefined ? addresses[0] : addresses.find((each) => each.name === name)
  if (address) return address
  if (name !== undefined && addresses.length > 0) {
    const names = addresses.map((each) => each.name)
    const near = nearest(name, names)
    throw new OperatorError(
      `There is no engine ${name}.${near === undefined ? '' : ` Did you mean ${near}?`} There is: ${names.join(', ')}.`,
    )
  }
  if (problems.length > 0) throw new OperatorError(problems.map(problemLine).join('\n'))
  throw new OperatorError(
    'There is no Docker engine to build on. Start Docker, set DOCKER_HOST, or name an engine below docker in berth.yaml.',
  )
}

function textOption({ options }: CommandContext, name: keyof typeof options): string | undefined {
  const value = options[name]
  return typeof value === 'string' ? value : undefined
}
