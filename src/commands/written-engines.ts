// The engines that the configuration names, for commands that work without a running Berth.

import { readConfigFile } from '../config/file.ts'
import { loadConfig } from '../config/load.ts'
import type { WrittenEngine } from '../model/engine.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import type { CommandContext } from './command.ts'

/** @throws {OperatorError} for a configuration with mistakes */
export async function writtenEngines({ config }: CommandContext): Promise<readonly WrittenEngine[] | 'auto'> {
  if (!config) return 'auto'
  const read = await readConfigFile(config)
  const loaded =
    'text' in read
      ? loadConfig({ text: read.text, file: config.name, folder: config.folder })
      : { problems: [read.problem] }
  if ('config' in loaded) return loaded.config.engines
  throw new OperatorError(loaded.problems.map(problemLine).join('\n'))
}
