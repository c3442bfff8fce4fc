/** One task: the `[[nodes]]` rows: the proxies that serve the same databases and switch as one. */
import type { NodeEntry } from './config.js';
import type { ConfigFile } from './schema.js';
import type { CheckedSource } from './source.js';

/** @throws CutoverError `configuration_invalid` for two rows with one name or one address */
export function nodeEntries(source: CheckedSource<ConfigFile>): readonly NodeEntry[] {
  const entries = source.data.nodes ?? [];
  for (const [index, entry] of entries.entries()) {
    const earlier = entries.slice(0, index);
    if (earlier.some((other) => other.name === entry.name))
      throw source.invalid(['nodes', index, 'name'], `two nodes are called "${entry.name}"`);
    const twin = earlier.find((other) => other.host === entry.host && other.port === entry.port);
    if (twin)
      throw source.invalid(['nodes', index, 'port'], `nodes "${twin.name}" and "${entry.name}" have the same address`);
  }
  return entries;
}
