// The words of `berth help` and `berth <command> --help`, made of what the commands say of themselves.

import type { Command, CommandOption } from './command.ts'
import { GLOBAL_OPTIONS } from './global-options.ts'
import { table } from './table.ts'

/** The list of all commands. */
export function overview(commands: readonly Command[]): string {
  return [
    'Berth gives every stdio MCP server a stable HTTP address behind Envoy.',
    '',
    'Usage: berth <command> [options]',
    '',
    table(commands.map(({ name, summary }) => [`  ${name}`, summary])),
    '',
    'berth <command> --help explains one of them. Without a configuration, berth up starts three servers to try.',
  ].join('\n')
}

/** One command with all its options. */
export function commandHelp(command: Command): string {
  const options = { ...command.options, ...GLOBAL_OPTIONS }
  return [
    `Usage: berth ${command.name} ${command.usage}`.trimEnd(),
    '',
    command.summary,
    '',
    table(Object.entries(options).map(([name, option]) => [`  ${optionWords(name, option)}`, option.summary])),
  ].join('\n')
}

function optionWords(name: string, { short, value }: CommandOption): string {
  return `${short ? `-${short}, ` : ''}--${name}${value ? ` ${value}` : ''}`
}
