// Problems of a control plane as a whole, beside those that its parts report.

import type { Config } from './config/load.ts'
import { problemLine, type Problem } from './model/problem.ts'
import { processTuning } from './model/tuning.ts'

/** Tells each problem once, and again when it comes back: call it whenever they may be others. */
export function telling(problems: () => readonly Problem[], tell: (problem: Problem) => void): () => void {
  const told = new Set<string>()
  return () => {
    const now = new Map(problems().map((problem) => [problemLine(problem), problem]))
    for (const [line, problem] of now) if (!told.has(line)) tell(problem)
    told.clear()
    for (const line of now.keys()) told.add(line)
  }
}

/** What a running control plane cannot change about itself. */
export function restartProblems(first: Config, now: Config): Problem[] {
  return [...apiProblems(first, now), ...processProblems(first, now)]
}

function processProblems(first: Config, now: Config): Problem[] {
  if (JSON.stringify(processTuning(first.tuning)) === JSON.stringify(processTuning(now.tuning))) return []
  return [
    {
      about: 'envoy',
      where: 'envoy.drain, envoy.overload',
      message: 'Envoy reads these when it starts, so those of its start stay in use.',
      remedy:
        'Start Berth again while Envoy goes on (kill -9, then berth up), and then `berth envoy restart`: no request fails.',
    },
  ]
}

function apiProblems(first: Config, now: Config): Problem[] {
  if (first.bind === now.bind && first.ports.api === now.ports.api) return []
  return [
    {
      about: 'control API',
      where: 'ports.api, bind',
      message: `The control API stays on ${first.bind}:${first.ports.api} until the next start.`,
      remedy:
        'Start Berth again: the control plane can be ended and started while calls go on (kill -9, then berth up).',
    },
  ]
}

/** Of an engine that does not answer, why the way to it is not open says more. */
export function withReasons(problems: readonly Problem[], reasons: readonly Problem[]): Problem[] {
  const explained = new Set(reasons.map(({ about }) => about))
  return [...problems.filter(({ about }) => !explained.has(about)), ...reasons]
}

/** What is said while the port of the gateway cannot be had. */
export function gatewayStays(port: number, current: number): Problem {
  return {
    about: 'gateway',
    where: 'ports.gateway',
    message: `Port ${port} is taken by another process, so the gateway stays on port ${current}.`,
    remedy: 'End that process or choose another port; Berth tries again by itself.',
  }
}
