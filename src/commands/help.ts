// `berth help`: the list of commands, or one of them explained.

import { nearest } from '../model/names.ts'
import { type Command, UsageError } from './command.ts'
import { commandHelp, overview } from './help-text.ts'

/** The command that explains the others, and itself. */
export function help(others: readonly Command[]): Command {
  const itself: Command = {
    name: 'help',
    summary: 'List the commands, or explain one.',
    usage: '[command]',
    options: {},
    run({ args: [name], print }) {
      const all = [...others, itself]
      const command = all.find((each) => each.name === name)
      if (name !== undefined && !command) throw unknownCommand(all, name)
      print(command ? commandHelp(command) : overview(all))
      return Promise.resolve(0)
    },
  }
  return itself
}

export function unknownCommand(commands: readonly Command[], name: string): UsageError {
  const names = commands.map((each) => each.name)
  const near = nearest(name, names)
  return new UsageError(
    `There is no command ${name}.${near ? ` Did you mean berth ${near}?` : ''} berth help lists them all.`,
  )
}
