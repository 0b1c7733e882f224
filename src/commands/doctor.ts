// `berth doctor`: what Berth needs of this machine, whether it is there, and what to do where it is not.

import { readConfigFile } from '../config/file.ts'
import { type Config, loadConfig } from '../config/load.ts'
import { problemLine } from '../model/problem.ts'
import type { CommandContext } from './command.ts'
import type { Finding } from './doctor-finding.ts'
import { containment, envoy, node, pip, stateFolder } from './doctor-machine.ts'
import { engines, ports, runningControlPlane } from './doctor-network.ts'

export const name = 'doctor'
export const summary = 'Check what Berth needs of this machine, and say what to do.'
export const usage = ''
export const options = {}

const MARKS = { ok: '✓', warning: '!', failure: '✗' } as const

export async function run(context: CommandContext): Promise<number> {
  const { config, finding } = await configuration(context)
  const findings = [
    node(process.versions.node),
    await envoy(context),
    await pip(context),
    await containment(context),
    await stateFolder(context),
    finding,
    ...(config ? [...(await engines(context, config)), ...(await ports(context, config))] : []),
    await runningControlPlane(context),
  ]
  context.print(context.json ? JSON.stringify(findings, null, 2) : findings.map(line).join('\n'))
  return findings.some(({ state }) => state === 'failure') ? 1 : 0
}

function line({ state, check, message, mend }: Finding): string {
  return `${MARKS[state]} ${check}: ${message}${mend === undefined ? '' : `\n    ${mend.replaceAll('\n', '\n    ')}`}`
}

/** The configuration that the other checks go by; undefined: it has mistakes. */
async function configuration({
  config: file,
  home,
}: CommandContext): Promise<{ config: Config | undefined; finding: Finding }> {
  const check = 'configuration'
  const read = file ? await readConfigFile(file) : { text: '' }
  const source = { file: file?.name ?? 'quickstart', folder: file?.folder ?? home }
  const loaded = 'text' in read ? loadConfig({ text: read.text, ...source }) : { problems: [read.problem] }
  if ('problems' in loaded) {
    const { length } = loaded.problems
    const message = `${source.file} has ${length === 1 ? 'a mistake' : `${length} mistakes`}:`
    const mend = loaded.problems.map(problemLine).join('\n')
    return { config: undefined, finding: { check, state: 'failure', message, mend } }
  }
  const message = file
    ? `${file.name} is valid, services: ${loaded.config.services.length}.`
    : 'there is no berth.yaml; berth up starts the quickstart configuration.'
  return { config: loaded.config, finding: { check, state: 'ok', message } }
}
