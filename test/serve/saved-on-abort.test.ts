/** One task: see that the files follow the decision: an attempt that was given up must not leave them naming the other side. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { invariant } from '../../src/errors/invariant.js';
import { useSystem } from '../support/served.js';

const system = useSystem({ source: 17, destination: 18, general: 'cutover_save_config = true' });

describe('cutover_save_config', () => {
  it('files prepared for a move that was given up are not put into place', async () => {
    const { served, files } = system();
    invariant(served, 'the program serves');
    const { node } = served;
    const [source, destination] = [await node.directory.sideOf('prod'), await node.directory.sideOf('prod_new')];
    const before = readFileSync(files.config, 'utf8');
    const request = { database: 'prod', peer: 'prod_new', epoch: 1, saveConfig: true };
    await node.prepare({ ...request, serving: destination });
    await node.swap({ ...request, serving: source });
    await node.resume('prod', 1, source);
    expect((await node.state('prod')).filesServe).toBe(true);
    expect(readFileSync(files.config, 'utf8')).toBe(before);
    await node.prepare({ ...request, epoch: 2, serving: destination });
    await node.swap({ ...request, epoch: 2, serving: destination });
    await node.resume('prod', 2, destination);
    expect((await node.state('prod')).filesServe).toBe(true);
    expect(readFileSync(files.config, 'utf8')).not.toBe(before);
  });

  it('files prepared for a move that is removed do not stay beside the live ones', async () => {
    const { served, directory } = system();
    invariant(served, 'the program serves');
    const { node } = served;
    const [here, there] = [await node.directory.sideOf('prod'), await node.directory.sideOf('prod_new')];
    const request = { database: 'prod', peer: 'prod_new', epoch: 3, saveConfig: true };
    const prepared = (): readonly string[] => readdirSync(directory).filter((name) => name.includes('.cutover-3'));
    await node.prepare({ ...request, serving: there });
    expect(prepared()).toHaveLength(5);
    await node.prepare({ ...request, serving: here });
    expect(prepared()).toEqual([]);
  });
});
