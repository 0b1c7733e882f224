// The configuration of a running control plane: the one it starts with, and each newer one that is right.

import { watchConfigFile, type ConfigFile } from './config/file.ts'
import { loadConfig, type Config, type ConfigText } from './config/load.ts'
import { OperatorError } from './model/operator-error.ts'
import { problemLine, type Problem } from './model/problem.ts'

/** @throws {OperatorError} with all mistakes */
export function configOf(text: ConfigText): Config {
  const loaded = loadConfig(text)
  if ('config' in loaded) return loaded.config
  const lines = loaded.problems.map(problemLine).join('\n  ')
  throw new OperatorError(`The configuration has ${count(loaded.problems.length, 'mistake')}:\n  ${lines}`)
}

function count(n: number, noun: string): string {
  return n === 1 ? `one ${noun}` : `${n} ${noun}s`
}

/** A new version that is wrong is told and not applied. */
export async function followConfig(
  file: ConfigFile,
  apply: (config: Config) => void,
  reconciler: { setConfigProblems(problems: readonly Problem[]): void },
  signal: AbortSignal,
): Promise<void> {
  for await (const state of watchConfigFile(file, signal)) {
    if ('problem' in state) {
      reconciler.setConfigProblems([state.problem])
      continue
    }
    const loaded = loadConfig({ text: state.text, file: file.name, folder: file.folder })
    if ('problems' in loaded) reconciler.setConfigProblems(loaded.problems)
    else apply(loaded.config)
  }
}
