// Builds an image on an engine, through its API.

import type { Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'

import { EngineClient } from './client.ts'
import { EngineAnswerError, type EngineAddress } from './engine.ts'

export interface ImageBuild {
  /** A tar archive with a Dockerfile. */
  readonly context: Readable
  /** The name that the image gets. */
  readonly tag: string
  /** The steps run without a network. */
  readonly offline: boolean
}

/** The engine could not build it. The message is the engine's, followed by the last lines of output. */
export class ImageBuildError extends Error {
  override readonly name = 'ImageBuildError'
}

/** What is sent to the engine cannot be read. */
export class BuildContextError extends Error {
  override readonly name = 'BuildContextError'
}

/** A line of the engine's answer. */
interface Progress {
  /** Output of the build, in pieces. */
  readonly stream?: string
  /** Of the fetching of a base image; with `progress` it is repeated many times. */
  readonly status?: string
  readonly progress?: string
  readonly id?: string
  readonly error?: string
  readonly aux?: { readonly ID?: string }
}

const LINES_KEPT = 20
const LINE_BYTES = 1024 * 1024
/** A step may say nothing for as long as it takes, so an engine that hangs is told by this. */
const PING_EVERY_MS = 15_000
const PING_MS = 10_000

/**
 * Resolves to the id of the image. Rejects with ImageBuildError, BuildContextError, the signal's reason, or a system
 * error when the engine cannot be reached or goes away.
 *
 * @param onStep is told each step as it begins, not what the programs in it say
 */
export async function buildImage(
  address: EngineAddress,
  { context, tag, offline }: ImageBuild,
  onStep: (line: string) => void,
  signal: AbortSignal,
): Promise<string> {
  // dockerode pipes the context without listening to its errors.
  const broken = new AbortController()
  context.once('error', (error) => broken.abort(new BuildContextError(error.message, { cause: error })))
  const client = new EngineClient(address)
  const hung = new AbortController()
  const ends = AbortSignal.any([signal, broken.signal, hung.signal])
  const pings = setInterval(() => {
    client.ping(AbortSignal.any([ends, AbortSignal.timeout(PING_MS)])).catch((error: Error) => {
      // Any answer is a sign of life, also of what stands before the engine and does not allow this one.
      if (error.name === 'TimeoutError') hung.abort(error)
    })
  }, PING_EVERY_MS)
  const last: string[] = []
  let id: string | undefined
  try {
    ends.throwIfAborted()
    const options = {
      t: tag,
      rm: true,
      forcerm: true,
      // The classic builder: BuildKit needs a session beside the request, and no recipe needs BuildKit.
      version: '1',
      ...(offline && { networkmode: 'none' }),
    } as const
    const answer = await client.build(context, options, ends)
    for await (const line of linesOf(answer)) {
      if (line.error !== undefined) throw new ImageBuildError([oneLine(line.error), ...last].join('\n  '))
      id = line.aux?.ID ?? id
      if (line.status !== undefined && line.progress === undefined) onStep(oneLine(statusWords(line)))
      for (const words of (line.stream ?? '').split('\n').map(oneLine)) {
        if (words === '') continue
        if (/^Step \d+\/\d+ : /.test(words)) onStep(words)
        last.push(words)
        if (last.length > LINES_KEPT) last.shift()
      }
    }
  } catch (error) {
    throw ends.aborted ? ends.reason : inOwnWords(error)
  } finally {
    clearInterval(pings)
    context.destroy()
    client.close()
  }
  if (id === undefined)
    throw new ImageBuildError(['The engine ended the build without a result.', ...last].join('\n  '))
  return id
}

async function* linesOf(answer: NodeJS.ReadableStream): AsyncGenerator<Progress> {
  const decoder = new StringDecoder('utf8')
  let rest = ''
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    const [first = '', ...others] = decoder.write(chunk).split('\n')
    const lines = [rest + first, ...others]
    rest = lines.pop()!
    if (rest.length > LINE_BYTES) throw new ImageBuildError(`The engine wrote a line of more than ${LINE_BYTES} bytes.`)
    for (const line of lines) if (line.trim() !== '') yield JSON.parse(line) as Progress
  }
}

function statusWords({ id, status }: Progress): string {
  return id === undefined ? status! : `${id}: ${status}`
}

/** An engine that refuses at once. */
function inOwnWords(error: unknown): unknown {
  return error instanceof EngineAnswerError ? new ImageBuildError(oneLine(error.said), { cause: error }) : error
}

/** What programs write must not steer the terminal. */
function oneLine(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').trim()
}
