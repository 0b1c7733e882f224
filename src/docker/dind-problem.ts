// What can keep Berth's own engine from running, in words.

import { OperatorError } from '../model/operator-error.ts'
import type { Problem } from '../model/problem.ts'
import type { DindDefinition } from './dind-definition.ts'
import { EngineAnswerError, engineProblem, type EngineAddress } from './engine.ts'

/** Carries the same as data, for a control plane that goes on without this engine. */
export class DindError extends OperatorError {
  readonly problem: Problem

  constructor(problem: Problem, options?: ErrorOptions) {
    super(`${problem.message} ${problem.remedy}`)
    this.cause = options?.cause
    this.problem = problem
  }
}

export class DindProblems {
  readonly #definition: DindDefinition
  readonly #host: EngineAddress
  readonly #engine: string

  /** @param engine its name in the configuration */
  constructor(definition: DindDefinition, host: EngineAddress, engine: string) {
    this.#definition = definition
    this.#host = host
    this.#engine = engine
  }

  /** @param what e.g. `container` */
  foreign(what: string, name: string): DindError {
    return this.#error(
      `There is a ${what} ${name} that this Berth has not made.`,
      `Remove it (docker ${what} rm ${name}) if nobody needs it, or use that engine by its address instead of a managed one.`,
    )
  }

  /** @param taker whose addresses overlap */
  subnetTaken(taker: string, cause?: unknown): DindError {
    return this.#error(
      `The addresses ${this.#definition.subnet} that Berth's own Docker engine needs are taken by ${taker}.`,
      'Remove that, or leave the managed engine out of docker.',
      cause,
    )
  }

  image(cause: unknown): DindError {
    return this.#error(
      `The image ${this.#definition.image} cannot be fetched (${(cause as Error).message}).`,
      `Look at the network, or load the image by hand (docker pull ${this.#definition.image}).`,
      cause,
    )
  }

  certificates(folder: string, cause: unknown): DindError {
    return this.#error(
      `The certificates in ${folder} cannot be written (${(cause as Error).message}).`,
      'Give the folder to the user that Berth runs as.',
      cause,
    )
  }

  notReady(words: string, cause?: unknown): DindError {
    const log = `Look into its log (docker logs ${this.#definition.name}).`
    return this.#error(`Berth's own Docker engine does not start: ${words}`, log, cause)
  }

  /** Of a call to the engine that runs it; what is in words already stays as it is. */
  ofCall(cause: unknown): unknown {
    if (cause instanceof DindError) return cause
    if (!(cause instanceof EngineAnswerError)) {
      const { name, code } = cause as NodeJS.ErrnoException
      const isOfEngine = code !== undefined || name === 'TimeoutError'
      return isOfEngine ? new DindError(engineProblem(this.#host, cause), { cause }) : cause
    }
    const { port, plainPort, name } = this.#definition
    if (isPortTaken(cause)) {
      const ports = plainPort === undefined ? `port ${port}` : `port ${port} or ${plainPort}`
      return this.#error(`Another program has ${ports} of 127.0.0.1.`, `End it (ss -ltnp shows which one).`, cause)
    }
    if (/pool overlaps/i.test(cause.message)) return this.subnetTaken('another network', cause)
    if (cause.status === 409 && cause.message.includes('is already in use')) {
      return this.#error(`Another Berth makes ${name} at this moment.`, 'Try again when it is done.', cause)
    }
    return new DindError(engineProblem(this.#host, cause), { cause })
  }

  #error(message: string, remedy: string, cause?: unknown): DindError {
    const { name } = this.#definition
    const about = `engine ${this.#engine}`
    return new DindError({ about, where: `container ${name}`, message, remedy }, { cause })
  }
}

function isPortTaken({ message }: EngineAnswerError): boolean {
  return /address already in use|port is already allocated/.test(message)
}

/** True when the engine, or what stands before it, does not let the container have these rights. */
export function isRefusalOfRights(error: unknown): boolean {
  return (
    error instanceof EngineAnswerError &&
    !isPortTaken(error) &&
    /privileged|not permitted|permission denied|not allowed|forbidden|unauthori[sz]ed|authorization/i.test(
      error.message,
    )
  )
}
