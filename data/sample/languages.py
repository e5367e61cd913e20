"""Questions in German and Spanish, with the same preference as the English ones."""

from random import Random

from questions import Question

GERMAN_THINGS = ["Äpfel", "Bücher", "Kerzen", "Knöpfe", "Murmeln", "Nüsse", "Postkarten", "Stühle"]
SPANISH_THINGS = ["manzanas", "postales", "velas", "botones", "nueces", "sillas", "canicas", "piedras"]
GERMAN_FACTS = [
    ("Wie heißt die Hauptstadt von Norwegen?", "Oslo", "Bergen", "In Oslo sitzt die Regierung", "Norwegen"),
    ("Welche Farbe entsteht aus Blau und Gelb?", "Grün", "Braun", "Blau und Gelb mischen sich zu Grün", "Farben"),
    ("Wie nennt man ein junges Pferd?", "Fohlen", "Kalb", "So heißt das Junge der Stute", "Pferde"),
    ("Wie viele Beine hat eine Spinne?", "acht", "sechs", "Spinnen haben vier Beinpaare", "Spinnen"),
    ("Was ist das Gegenteil von schmal?", "breit", "dünn", "Was breit ist, kann nicht schmal sein", "Gegensätze"),
    ("Welcher Fluss fließt durch Köln?", "der Rhein", "die Elbe", "Der Dom steht nahe am Rhein", "Flüsse"),
    ("Was backt man aus Mehl, Wasser und Hefe?", "Brot", "Pudding", "Hefe lässt den Teig aufgehen", "Brot"),
    ("Welcher Tag folgt auf den Mittwoch?", "Donnerstag", "Dienstag", "So ist die Reihe der Wochentage", "die Woche"),
    ("Womit misst man die Temperatur?", "mit dem Thermometer", "mit der Waage", "Es zeigt Grade an", "das Wetter"),
    ("Warum schwimmt Eis auf dem Wasser?", "weil es leichter ist", "weil es kalt ist",
     "Gefrorenes Wasser dehnt sich aus",
     "Eis"),
]  # fmt: skip
SPANISH_FACTS = [
    ("¿Cuál es la capital de Portugal?", "Lisboa", "Oporto", "El gobierno tiene su sede en Lisboa", "Portugal"),
    ("¿Qué color sale al mezclar rojo y amarillo?", "naranja", "verde", "Rojo y amarillo juntos dan naranja",
     "los colores"),
    ("¿Cómo se llama la cría de la vaca?", "ternero", "potro", "Así se llama el hijo de la vaca", "las vacas"),
    ("¿Cuántas patas tiene una hormiga?", "seis", "ocho", "Todos los insectos tienen seis", "las hormigas"),
    ("¿Qué es lo contrario de vacío?", "lleno", "hueco", "Lo que está lleno no puede estar vacío", "los contrarios"),
    ("¿Qué río pasa por Sevilla?", "el Guadalquivir", "el Ebro", "La Torre del Oro está en su orilla", "los ríos"),
    ("¿Qué mes viene después de abril?", "mayo", "marzo", "Ese es el orden del calendario", "el calendario"),
    ("¿Con qué se corta el papel?", "con tijeras", "con cuchara", "Las tijeras tienen dos hojas", "el papel"),
    ("¿Por qué flota un corcho?", "porque es ligero", "porque es redondo", "Contiene mucho aire en sus poros",
     "el corcho"),
    ("¿Qué hace un panadero?", "pan", "zapatos", "El pan sale de su horno", "los oficios"),
]  # fmt: skip


def german(rng: Random) -> Question:
    """A German question: a small fact or a sum."""
    if rng.random() < 0.4:
        return Question("facts", "de", *rng.choice(GERMAN_FACTS))
    a, b, thing = rng.randint(4, 30), rng.randint(3, 12), rng.choice(GERMAN_THINGS)
    sums = [
        (f"In einem Korb liegen {a} {thing}, es kommen {b} dazu. Wie viele sind es dann?", a + b,
         f"{a} und {b} sind zusammen {a + b}"),
        (f"Für das Fest brauchen wir {b} Kisten mit je {a} {thing}. Wie viele {thing} macht das?", a * b,
         f"{b} mal {a} ergibt {a * b}"),
        (f"Von {a + b} Stück ({thing}) hat Anna {b} verschenkt. Was bleibt ihr?", a, f"{a + b} weniger {b} ist {a}"),
        (f"Wie lange dauert es zusammen, wenn ich {a} Minuten laufe und {b} Minuten warte?", f"{a + b} Minuten",
         f"Man zählt {a} und {b} zusammen"),
    ]  # fmt: skip
    prompt, value, because = rng.choice(sums)
    return Question("arithmetic", "de", prompt, str(value), str(a + 2 * b), because, thing)


def spanish(rng: Random) -> Question:
    """A Spanish question: a small fact or a sum."""
    if rng.random() < 0.4:
        return Question("facts", "es", *rng.choice(SPANISH_FACTS))
    a, b, thing = rng.randint(4, 30), rng.randint(3, 12), rng.choice(SPANISH_THINGS)
    sums = [
        (f"Hay {a} {thing} en la mesa y llegan {b} más. ¿Cuántas hay ahora?", a + b, f"{a} y {b} suman {a + b}"),
        (f"Compramos {b} bolsas con {a} {thing} cada una. ¿Cuántas {thing} son en total?", a * b,
         f"{b} por {a} son {a * b}"),
        (f"Marta tenía {a + b} {thing} y regaló {b}. ¿Cuántas le quedan?", a, f"{a + b} menos {b} son {a}"),
        (f"Camino {a} minutos y espero otros {b}. ¿Cuánto tiempo es en total?", f"{a + b} minutos",
         f"Se suman {a} y {b}"),
    ]  # fmt: skip
    prompt, value, because = rng.choice(sums)
    return Question("arithmetic", "es", prompt, str(value), str(a + 2 * b), because, thing)
