/** One task: read the settings a client asks for in its startup packet, and say what it will be told of them. */
import { SessionSettings } from './settings.js';

/** Parameters of a startup packet that are no settings (PostgreSQL documentation, 54.7, StartupMessage). */
const NOT_SETTINGS = new Set(['user', 'database', 'options', 'replication']);

/** What a client is told about a server nobody has reached yet. */
const DEFAULTS: ReadonlyMap<string, string> = new Map([
  ['server_version', '15.0'],
  ['server_encoding', 'UTF8'],
  ['client_encoding', 'UTF8'],
  ['application_name', ''],
  ['is_superuser', 'off'],
  ['DateStyle', 'ISO, MDY'],
  ['IntervalStyle', 'postgres'],
  ['TimeZone', 'UTC'],
  ['integer_datetimes', 'on'],
  ['standard_conforming_strings', 'on'],
]);

/** The settings of a startup packet: its own parameters over those in `options`. */
export function settingsOf(parameters: ReadonlyMap<string, string>): SessionSettings {
  const direct = [...parameters].filter(([name]) => !NOT_SETTINGS.has(name) && !name.startsWith('_pq_.'));
  return SessionSettings.fromValues([...fromOptions(parameters.get('options') ?? ''), ...direct]);
}

/** `-c name=value`, `-cname=value` and `--name=value`; a backslash keeps the next character (documentation, 34.1.2, options). */
function fromOptions(options: string): [string, string][] {
  const words = [...options.matchAll(/(?:\\.|[^\s\\])+/gs)].map(([word]) => word.replaceAll(/\\(.)/gs, '$1'));
  const settings: [string, string][] = [];
  for (let at = 0; at < words.length; at += 1) {
    let word = words[at] ?? '';
    if (word === '-c') {
      at += 1;
      word = `--${words[at] ?? ''}`;
    }
    const match = /^(?:--|-c)([^=]+)=(.*)$/s.exec(word);
    if (match !== null) settings.push([(match[1] ?? '').replaceAll('-', '_'), match[2] ?? '']);
  }
  return settings;
}

/** What clients are told at login. Most are told the same as the one before: then it is the same map, which takes most of a kilobyte. */
export class ToldParameters {
  #last: ReadonlyMap<string, string> = DEFAULTS;

  /**
   * What a server of the client's reported, with what it asked for itself. What turns out different is told when it gets a server.
   *
   * @param asked parameters of the startup packet, by name in lower case
   */
  for(reported: ReadonlyMap<string, string> | null, asked: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
    const told = new Map(
      [...(reported ?? DEFAULTS)].map(([name, value]) => [name, asked.get(name.toLowerCase()) ?? value]),
    );
    const same = told.size === this.#last.size && [...told].every(([name, value]) => this.#last.get(name) === value);
    if (!same) this.#last = told;
    return this.#last;
  }
}
