import { askedSeed } from "@lockstep/testing";
import fc from "fast-check";

/** Loaded before property tests: they draw the same in every run, unless LOCKSTEP_SEED asks for something else. */
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: askedSeed(20261123) % 2 ** 31 });
